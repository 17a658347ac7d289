"""For people who come from POT: its names, arguments and return values, solved here.

    from pushforward.ot import compat as ot     # in place of: import ot

    ot.sinkhorn, ot.sinkhorn2, ot.sinkhorn_stabilized, ot.empirical_sinkhorn, ...      `bregman`
    ot.emd, ot.emd2                                                                   `lp`
    ot.unbalanced.sinkhorn_unbalanced, ot.unbalanced.sinkhorn_unbalanced2             `unbalanced`

Arrays of numpy, torch and any library of the array API (jax, cupy) are taken, and results come back in the library of
M. Torch results carry derivatives; those of other libraries do not.

What differs from POT, on purpose:

* Wrong input is an error that names the argument: a negative weight, unequal masses, reg = 0, shapes that contradict.
* Iterations are those of `solve`, of which a few dozen do the work of thousands of Sinkhorn's. `method` is checked
  and otherwise without effect: POT's methods all compute the same plan. So are the settings of its methods.
* `stopThr` bounds the L1 error of both marginals over the mass, which is stricter than POT's L2 error of one. A plan
  that does not reach it comes with a `NotConvergedWarning`, where POT's `sinkhorn2` is silent unless asked.
* The objective of `sinkhorn_unbalanced2(returnCost="total")` is that of POT's documentation.
"""

from pushforward.ot.compat import bregman, lp, unbalanced
from pushforward.ot.compat.bregman import (
    empirical_sinkhorn,
    empirical_sinkhorn2,
    empirical_sinkhorn_divergence,
    sinkhorn,
    sinkhorn2,
    sinkhorn_stabilized,
)
from pushforward.ot.compat.lp import emd, emd2
from pushforward.ot.compat.unbalanced import sinkhorn_unbalanced, sinkhorn_unbalanced2

__all__ = [
    "bregman",
    "emd",
    "emd2",
    "empirical_sinkhorn",
    "empirical_sinkhorn2",
    "empirical_sinkhorn_divergence",
    "lp",
    "sinkhorn",
    "sinkhorn2",
    "sinkhorn_stabilized",
    "sinkhorn_unbalanced",
    "sinkhorn_unbalanced2",
    "unbalanced",
]
