r"""The loss as it is written on the command line.

    loss    = term { "+" term }
    term    = [ weight "*" ] name
    name    = "kd" | "mse" | "sinkhorn" | "published-sinkhorn" | "ce" | a divergence of the catalogue

"kd" is "kl", "mse" the squared difference of the logits, which is all that there is for a task whose label is a score.
Weights that are left out are those of the published loss: 0.1 of "ce", which is the student's own loss on the labels
and is there unless "0*ce" takes it away, 0.9 of a divergence or of "mse", and 0.8 of a Sinkhorn distance.
"""

from __future__ import annotations

import math
import re
from functools import reduce
from typing import TYPE_CHECKING

from pushforward.jobs.errors import InputError

if TYPE_CHECKING:
    from pushforward.lm.losses import DistillationLoss, WeightedSum

__all__ = ["parse_loss"]

_TERM = re.compile(r"(?:(?P<weight>\d+\.?\d*(?:e-?\d+)?)\s*\*\s*)?(?P<name>[a-z_\-]+(?:\([^()]*\))?)")
_DIVERGENCE, _SINKHORN, _CE = 0.9, 0.8, 0.1


def parse_loss(
    text: str, *, temperature: float, epsilon: float, sinkhorn_temperature: float | None = None
) -> tuple[float, DistillationLoss | None]:
    """What a loss's text means.

    Args:
        text: See above.
        temperature: The temperature of the divergences, and of the Sinkhorn terms unless they have their own.
        epsilon: The regularisation of the Sinkhorn terms.
        sinkhorn_temperature: The temperature of the Sinkhorn terms; None for the same.

    Returns:
        The weight of the loss on the labels, and the loss on the teacher's logits; None for "ce" alone.

    Raises:
        InputError: The text is no loss; the message says which term is wrong.

    Example:
        >>> parse_loss("kd+sinkhorn", temperature=2, epsilon=0.1)[0]
        0.1
    """
    label_weight: float | None = None
    parts: list[WeightedSum] = []
    for term in text.split("+"):
        found = _TERM.fullmatch(term.strip())
        if not found:
            raise InputError(
                f'--loss {text}: "{term.strip()}" is no term; terms are like kd, 0.8*sinkhorn or skewed_kl(0.1)'
            )
        weight = None if found["weight"] is None else float(found["weight"])
        if weight is not None and not math.isfinite(weight):
            raise InputError(f'--loss {text}: the weight of "{found["name"]}" must be a finite number')
        if found["name"] in ("sinkhorn", "published-sinkhorn"):
            of_term = temperature if sinkhorn_temperature is None else sinkhorn_temperature
            parts.append(_sinkhorn(found["name"], weight, temperature=of_term, epsilon=epsilon))
        elif found["name"] != "ce":
            parts.append(_part(text, found["name"], weight, temperature=temperature))
        elif label_weight is not None:
            raise InputError(f'--loss {text}: has two terms "ce"')
        else:
            label_weight = weight if weight is not None else _CE
    if label_weight == 0 and not any(w for part in parts for w, _ in part.parts):
        raise InputError(f"--loss {text}: every weight is 0, so that there is nothing to learn")
    if not parts:
        # Of one term only the weight says nothing but the learning rate.
        return 1.0, None
    return _CE if label_weight is None else label_weight, reduce(lambda total, part: total + part, parts)


def _sinkhorn(name: str, weight: float | None, *, temperature: float, epsilon: float) -> WeightedSum:
    from pushforward.lm.sinkhorn import SinkhornKD

    loss = SinkhornKD(epsilon=epsilon, temperature=temperature, published=name == "published-sinkhorn")
    return (_SINKHORN if weight is None else weight) * loss


def _part(text: str, name: str, weight: float | None, *, temperature: float) -> WeightedSum:
    from pushforward import divergences
    from pushforward.errors import InvalidArgument
    from pushforward.lm.losses import KD, SquaredError

    try:
        loss = SquaredError() if name == "mse" else KD("kl" if name == "kd" else name, temperature=temperature)
    except InvalidArgument:
        known = ", ".join(["ce", "kd", "mse", "sinkhorn", "published-sinkhorn", *divergences.CATALOGUE])
        raise InputError(
            f'--loss {text}: "{name}" is no loss; there are {known}, generalised_js(NUMBER) and skewed_kl(NUMBER)'
        ) from None
    return (_DIVERGENCE if weight is None else weight) * loss
