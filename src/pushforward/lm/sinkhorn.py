"""Distillation by the Sinkhorn distance: over the samples of a batch, or over the classes of each sample.

Over the batch, q_i and p_i the student's and the teacher's probabilities of sample i,

    C_ij = |q_i - p_j|_1 + w |r_i - r_j|_2,     S = OT(q, p) - OT(q, q)/2 - OT(p, p)/2,

OT the optimum of min <P, C> + epsilon KL(P | uniform) over plans between the N samples, solved to a tolerance and
differentiated exactly (`between_samples.py`). S is 0 when the student is the teacher, and positive otherwise. It does
not know which teacher's row belongs to which student's (with w = 0, a shuffled teacher scores the same): it is an
addition to a loss that does.

Over the classes it is one problem a sample, q_i against p_i with a cost between classes (`between_classes.py`), and can
stand alone.

symbol    meaning                                              shape      unit
q, p      probabilities of student and teacher                 (N, K)
r, w      representations of the inputs, and their weight      (N, d)
P, C      plan and cost                                        (N, N)     C: L1 distance, 2 at most
epsilon   regularisation                                                  that of C

Source: Cui et al. 2024, "Sinkhorn Distance Minimization for Knowledge Distillation" (SinKD, arXiv 2402.17110); the
debiased form is Feydy et al.'s (arXiv 1810.08278).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pushforward._checks import check_choice, check_positive, check_weight
from pushforward._interop import compute_dtype
from pushforward._typed import typed
from pushforward.errors import InvalidArgument
from pushforward.lm.between_classes import TokenCost, between_classes, check_ground_cost, with_costs
from pushforward.lm.between_samples import assigned, between_samples, published, transport_cost
from pushforward.lm.losses import Context, DistillationLoss, softened
from pushforward.training.distributed import gather

__all__ = ["SinkhornKD", "TokenCost"]


class SinkhornKD(DistillationLoss):
    """The Sinkhorn distance between student and teacher, exact where the paper's code stops after 20 steps.

    Args:
        epsilon: Regularisation, in units of the cost. 0 is the unregularised cost of the best assignment of the
            batch's samples, by sorting where there are two classes.
        temperature: T of both softmaxes.
        support: "batch" moves mass among a batch's samples, "classes" among each sample's classes.
        cost: With "classes", what moving mass from one class to another costs: (K, K), symmetric, or a `TokenCost`.
        value: What is minimised. "divergence" is S (module docstring); "optimum" is OT(q, p), which has its minimum
            away from q = p; "transport_cost" is <P, C> at OT's plan, differentiated by the implicit function theorem.
        representation_weight: w. The representations come with the call.
        tol: L1 marginal error to which plans are solved.
        published: The paper's code instead: 20 normalisations of exp(-C/epsilon), <P, C> summed over the batch and
            not averaged, times 0.001, differentiated by unrolling. For comparison; it overflows in half precision. It
            is their form for classifiers, each position a sample; what their files for decoders make of (B, L, V)
            logits, a softmax over positions, is not offered.

    Under torchrun a batch is that of all processes together, except with groups, which stay where they are. Logits are
    checked before the problem is solved: NaN in them is an error that names the place.

    Example:
        >>> loss = SinkhornKD(epsilon=0.1)
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> abs(round(float(loss(logits, logits)), 6)), round(float(loss(logits, -logits)), 4) > 0
        (0.0, True)
    """

    pairs_samples = False
    of_classes = True
    needs_finite = True

    @typed
    def __init__(  # noqa: PLR0913 - settings, keyword-only
        self,
        *,
        epsilon: float = 0.1,
        temperature: float = 2.0,
        support: Literal["batch", "classes"] = "batch",
        cost: Tensor | TokenCost | None = None,
        value: Literal["divergence", "optimum", "transport_cost"] = "divergence",
        representation_weight: float = 0.0,
        tol: float = 1e-6,
        published: bool = False,
    ) -> None:
        self.epsilon = check_weight("epsilon", epsilon)
        self.temperature = check_positive("temperature", temperature)
        self.support = check_choice("support", support, ("batch", "classes"))
        self.value = check_choice("value", value, ("divergence", "optimum", "transport_cost"))
        self.representation_weight = check_weight("representation_weight", representation_weight)
        self.tol = check_positive("tol", tol)
        self.published = published
        self.cost = cost
        self.pairs_samples = support == "classes"
        self.needs_representations = self.representation_weight > 0
        self._check_combination()

    def _check_combination(self) -> None:
        if self.support == "classes":
            if self.cost is None:
                raise InvalidArgument(
                    'support="classes" needs cost: what moving mass between two classes costs, (K, K)'
                )
            if self.epsilon == 0 or self.value != "divergence" or self.published or self.representation_weight:
                raise InvalidArgument(
                    'support="classes" is the divergence at epsilon > 0: leave value, published and '
                    "representation_weight alone"
                )
            if isinstance(self.cost, Tensor):
                check_ground_cost(self.cost)
        elif self.cost is not None:
            raise InvalidArgument('cost is between classes: it needs support="classes"')
        if self.published and (self.epsilon == 0 or self.value != "divergence" or self.representation_weight):
            raise InvalidArgument("published=True is one loss, of epsilon and temperature alone")

    def __repr__(self) -> str:
        """The Python call that makes the loss, without its costs."""
        arguments = [f"epsilon={self.epsilon:g}", f"temperature={self.temperature:g}"]
        arguments += [f"support={self.support!r}"] if self.support != "batch" else []
        arguments += [f"value={self.value!r}"] if self.value != "divergence" else []
        arguments += [f"representation_weight={self.representation_weight:g}"] if self.representation_weight else []
        arguments += ["published=True"] if self.published else []
        return f"SinkhornKD({', '.join(arguments)})"

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The loss of N rows, a scalar."""
        q = softened(student_logits, self.temperature).softmax(-1)
        p = softened(teacher_logits, self.temperature).softmax(-1)
        if self.published:
            return published(q, p, self.epsilon)
        if self.support == "classes":
            assert self.cost is not None
            return between_classes(*with_costs(q, p, self.cost), epsilon=self.epsilon, tol=self.tol)
        r = self._representations(context)
        if context.group_ids is not None:
            members = [(context.group_ids == group).nonzero()[:, 0] for group in context.group_ids.unique()]
            parts = [len(i) / len(q) * self._between_samples(q[i], p[i], None if r is None else r[i]) for i in members]
            return torch.stack(parts).sum()
        return self._between_samples(gather(q), gather(p), None if r is None else gather(r))

    def _representations(self, context: Context) -> Tensor | None:
        if not self.representation_weight:
            return None
        if context.representations is None:
            raise InvalidArgument(
                "representation_weight is set but the call has no representations: "
                "pass context=Context(representations=...), a vector for each position"
            )
        return context.representations

    def _between_samples(self, q: Tensor, p: Tensor, r: Tensor | None) -> Tensor:
        alike = None
        if r is not None:
            points = r.to(compute_dtype(r.device))
            alike = self.representation_weight * torch.cdist(
                points, points, compute_mode="donot_use_mm_for_euclid_dist"
            )
        if self.epsilon == 0:
            return assigned(q, p, alike)
        if self.value == "transport_cost":
            return transport_cost(q, p, alike, epsilon=self.epsilon, tol=self.tol)
        return between_samples(q, p, alike, epsilon=self.epsilon, tol=self.tol, debiased=self.value == "divergence")
