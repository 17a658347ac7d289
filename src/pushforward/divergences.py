"""f-divergences between a target p and a model q: one entry a divergence, its gradient and its weight derived from it.

    D_f(p || q) = E_q[ f(r) ],   r = p / q,   f convex, f(1) = 0

symbol   meaning                                  shape        unit
log_p    log-probabilities of the target          (..., K)     nats
log_q    log-probabilities of the model           (..., K)     nats
s        log density ratio log p - log q          any          nats
h        weight r^2 f''(r) of a score difference  like s       1

-inf is the logarithm of an impossible outcome: 0 log 0 = 0, and a divergence that is infinite comes out as inf.

Sources: Nowozin et al. 2016 (f-GAN) for the generators; Xu et al. 2025 (f-distill, arXiv 2502.15681), Table 1, for h;
Agarwal et al. 2024 (GKD, arXiv 2306.13649) for JS(beta); Ko et al. 2024 (DistiLLM, arXiv 2402.03898) for skewed KL.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pushforward._checks import check_returned, check_same_device
from pushforward._interop import compute_dtype
from pushforward._typed import typed, typed_fields
from pushforward.errors import InvalidArgument, ShapeError

__all__ = [
    "CATALOGUE",
    "JEFFREYS",
    "JS",
    "KL",
    "REVERSE_KL",
    "SOFTENED_REVERSE_KL",
    "SQUARED_HELLINGER",
    "TOTAL_VARIATION",
    "FDivergence",
    "generalised_js",
    "named",
    "skewed_kl",
]

_LOG_2 = math.log(2)
# exp of it is 0 in every dtype, and the difference of two such logarithms is a number where inf - inf is none.
_IMPOSSIBLE = -1e4


@typed_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class FDivergence:
    """One f-divergence, written so that no ratio is ever formed where it could overflow.

    Args:
        name: How the divergence is called in recipes and messages.
        f: The generator as a function of log r, elementwise and differentiable.
        integrand: (log_p, log_q) -> q f(p/q), elementwise; it may differ by multiples of p - q, which sum to nothing.
            None derives it from `f`: in float64, many times slower, with log-ratios beyond +-298 taken as infinite,
            where f(0) and lim f(r)/r decide. Those two are read off `f` at +-298 and +-596, and count as infinite
            where the two readings differ.
        smooth: Whether f has a second derivative, and so a weight.

    Example:
        >>> pearson = FDivergence(name="pearson", f=lambda s: torch.expm1(s).square())
        >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.8, 0.2])
        >>> round(float(pearson.between(p.log(), q.log())), 4)  # the sum of (p - q)^2 / q
        0.5625
    """

    name: str
    f: Callable[[Tensor], Tensor]
    integrand: Callable[[Tensor, Tensor], Tensor] = None  # pyright: ignore[reportAssignmentType]  # never None once built
    smooth: bool = True

    def __post_init__(self) -> None:
        if not callable(self.integrand):
            object.__setattr__(self, "integrand", _integrand_of(self.name, self.f))

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """D_f(p || q) over the last axis.

        Args:
            log_p: Target log-probabilities, shape (..., K), normalised over K; -inf where an outcome is impossible.
            log_q: Model log-probabilities, the same shape.

        Returns:
            Divergences in nats, shape (...,), at least 0 up to rounding; float32 for half-precision input.

        Raises:
            InvalidArgument: Not floating tensors, or on two devices.
            ShapeError: Of two shapes.

        Example:
            >>> p = torch.tensor([0.5, 0.5]).log()
            >>> round(float(KL.between(p, torch.tensor([0.9, 0.1]).log())), 4)
            0.5108
        """
        for name, tensor in (("log_p", log_p), ("log_q", log_q)):
            _check_floating(name, tensor, "log-probabilities, as log_softmax gives them,")
        if log_p.shape != log_q.shape or log_p.ndim == 0:
            raise ShapeError(
                f"log_p has shape {tuple(log_p.shape)} but log_q {tuple(log_q.shape)}; "
                "both must be (..., K) over the same K outcomes"
            )
        check_same_device(("log_p", log_p), ("log_q", log_q))
        dtype = torch.promote_types(torch.promote_types(log_p.dtype, log_q.dtype), torch.float32)
        return self.integrand(log_p.to(dtype), log_q.to(dtype)).sum(-1)

    @typed
    def weight(self, log_r: Tensor) -> Tensor:
        """The weight h = r^2 f''(r) that f-distill puts on the score difference, derived from the integrand.

        With I(log p, log q) = q f(p/q):  q h = -d^2 I / (d log p  d log q). It equals F'' - F' for F(s) = f(e^s), but
        terms in p alone or q alone, which carry no information, drop out of a mixed derivative before they can cancel.

        Args:
            log_r: Log-ratios, any shape; beyond +-298 they count as that.

        Returns:
            Weights like `log_r`, detached, accurate to 1e-15 of max(1, h); where h exceeds what its dtype can hold, the
            largest number that it can.

        Raises:
            InvalidArgument: f is not smooth, or `log_r` not a floating tensor.

        Example:
            >>> JS.weight(torch.tensor([0.0, 200.0]))
            tensor([0.5000, 1.0000])
        """
        if not self.smooth:
            raise InvalidArgument(
                f"{self.name} has no weight: its f has no second derivative; choose a smooth divergence"
            )
        _check_floating("log_r", log_r, "log-ratios")
        dtype = compute_dtype(log_r.device)
        s = log_r.detach().to(dtype).clamp(-_far(dtype), _far(dtype))
        # The larger of p and q is 1, so that nothing overflows.
        log_p, log_q = s.clamp(max=0).requires_grad_(), (-s).clamp(max=0).requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.integrand(log_p, log_q).sum(), log_q, create_graph=True)
            (mixed,) = torch.autograd.grad(slope.sum(), log_p, materialize_grads=True)
        h = -mixed * s.clamp(min=0).exp()
        return h.clamp(0, torch.finfo(log_r.dtype).max).to(log_r.dtype)


@typed
def generalised_js(beta: float) -> FDivergence:
    """Jensen-Shannon, skewed: beta KL(p||m) + (1 - beta) KL(q||m) with m = beta p + (1 - beta) q.

    At 1/2 it is the textbook's Jensen-Shannon divergence, half of `JS`. Divided by beta it tends to KL(p||q) as
    beta -> 0, divided by 1 - beta to KL(q||p) as beta -> 1; at the ends itself it is 0, hence refused.

    Args:
        beta: Weight of the target, strictly between 0 and 1.

    Returns:
        The divergence.

    Raises:
        InvalidArgument: Outside; the message names the entry to use.

    Source: Agarwal et al. 2024, equation 1.
    """
    beta = _check_between("beta", beta, "use KL for the limit at 0, REVERSE_KL for the limit at 1")
    return _jensen_shannon(f"generalised_js({beta!r})", beta=beta, scale=1.0)


@typed
def skewed_kl(alpha: float) -> FDivergence:
    """KL(p || alpha p + (1 - alpha) q), at most -log alpha wherever the supports lie.

    Args:
        alpha: Share of the target in the mixture, strictly between 0 and 1; DistiLLM uses 0.1.

    Returns:
        The divergence.

    Raises:
        InvalidArgument: Outside; the message names the entry to use.

    Source: Ko et al. 2024, section 3.1.
    """
    alpha = _check_between("alpha", alpha, "use KL for 0; at 1 the divergence is 0 whatever p and q")
    return FDivergence(
        name=f"skewed_kl({alpha!r})",
        f=lambda s: s.exp() * _log_against_mixture(s, alpha),
        integrand=lambda log_p, log_q: _product(
            log_p.exp(), _log_against_mixture(_finite_log_ratio(log_p, log_q), alpha)
        ),
    )


def named(name: str) -> FDivergence:
    """The divergence with a name.

    Args:
        name: An entry's name ("reverse_kl"), or a family's with its parameter ("skewed_kl(0.1)").

    Returns:
        The divergence.

    Raises:
        InvalidArgument: No such name; the message lists them.

    Example:
        >>> named("kl") is KL, named("generalised_js(0.3)").name
        (True, 'generalised_js(0.3)')
    """
    if str(name) in CATALOGUE:
        return CATALOGUE[str(name)]
    families = {"generalised_js": generalised_js, "skewed_kl": skewed_kl}
    parts = re.fullmatch(r"(\w+)\((\d+\.?\d*(?:e-?\d+)?)\)", str(name))
    if parts and parts[1] in families:
        return families[parts[1]](float(parts[2]))
    known = ", ".join([*CATALOGUE, "generalised_js(beta)", "skewed_kl(alpha)"])
    raise InvalidArgument(f"name: no divergence is named {name!r}; there are {known}, the last two with a number")


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return _times(log_p.exp(), log_p - log_q)


def _softened_reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    p, q = log_p.exp(), log_q.exp()
    # log(1 + 1/r): infinite where only p is 0, never NaN.
    log_1_plus = _softplus(log_q.clamp_min(_IMPOSSIBLE) - log_p)
    return _times(p, log_1_plus.clone()) + _times(q, log_1_plus) - _LOG_2 * (p + q)


def _squared_hellinger(log_p: Tensor, log_q: Tensor) -> Tensor:
    return ((log_p / 2).exp_() - (log_q / 2).exp_()).square() / 2


def _jensen_shannon(name: str, *, beta: float, scale: float) -> FDivergence:
    log_odds = math.log((1 - beta) / beta)
    target, model = scale * beta, scale * (1 - beta)

    # u = log(beta p / ((1 - beta) q)) gives log(m/p) = softplus(-u) + log beta, log(m/q) = softplus(u) + log(1 - beta).
    def f(s: Tensor) -> Tensor:
        u = s - log_odds
        to_p, to_q = _softplus(-u) + math.log(beta), _softplus(u) + math.log(1 - beta)
        return -target * s.exp() * to_p - model * to_q

    def integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
        u = _finite_log_ratio(log_p, log_q).sub_(log_odds)
        to_p, to_q = _softplus(-u).add_(math.log(beta)), _softplus(u).add_(math.log(1 - beta))
        return _product(log_p.exp(), to_p.mul_(-target)).add_(_product(log_q.exp(), to_q.mul_(-model)))

    return FDivergence(name=name, f=f, integrand=integrand)


def _log_against_mixture(s: Tensor, alpha: float) -> Tensor:
    """log(p / m) for the mixture m = alpha p + (1 - alpha) q."""
    return _softplus(math.log((1 - alpha) / alpha) - s).add_(math.log(alpha)).neg_()


def _softplus(x: Tensor) -> Tensor:
    # Torch's own threshold, 20, is an error of 2e-9: float64 needs 37.
    return functional.softplus(x, threshold=40.0)


def _finite_log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    return log_p.clamp_min(_IMPOSSIBLE).sub_(log_q.clamp_min(_IMPOSSIBLE))


def _times(x: Tensor, y: Tensor) -> Tensor:
    """The product, 0 wherever x is 0, in value and gradient; `y` is overwritten."""
    return _product(x, y.masked_fill_(x == 0, 0.0))


def _product(x: Tensor, y: Tensor) -> Tensor:
    """The product, in the memory of `y` unless x's gradient needs it: new memory costs more than the multiplication."""
    return x * y if x.requires_grad else y.mul_(x)


def _integrand_of(name: str, f: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
        dtype = compute_dtype(log_p.device)
        far = _far(dtype)
        p, q = log_p.to(dtype).exp(), log_q.to(dtype).exp()
        s = log_p.to(dtype) - log_q.to(dtype)
        low, high = (s < -far) & (q > 0), (s > far) & (p > 0)
        # Where both are 0, s means nothing, and f(1) = 0 stands in for it; a NaN of the caller's goes through f.
        inside = ~((s.abs() > far) | ((p == 0) & (q == 0)))
        value = check_returned(f"f of {name}", f(s.masked_fill(~inside, 0.0)), tuple(s.shape))
        at_zero, slope = _limits(f, s.new_tensor([far, 2 * far]))
        total = _times(q, value.masked_fill(~inside, 0.0))
        total = total + _times(q.masked_fill(~low, 0.0), torch.full_like(q, at_zero))
        return (total + _times(p.masked_fill(~high, 0.0), torch.full_like(p, slope))).to(log_p.dtype)

    return integrand


def _limits(f: Callable[[Tensor], Tensor], far: Tensor) -> tuple[float, float]:
    """f(0) and the limit of f(r)/r for large r: the costs of outcomes that one side forbids, by the other's mass."""
    ends: list[float] = []
    for values in (f(-far), f(far) * (-far).exp()):
        near, there = (float(v) for v in values.detach())
        ends.append(there if abs(there - near) <= 1e-9 * max(1.0, abs(near)) else math.inf)
    return ends[0], ends[1]


def _far(dtype: torch.dtype) -> float:
    """A log-ratio past which the smaller side is negligible, and whose double can still be exponentiated."""
    return 0.42 * math.log(torch.finfo(dtype).max)


def _check_floating(name: str, value: Any, what: str) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = str(value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InvalidArgument(f"{name} is {given}; {what} are needed as a floating tensor")


def _check_between(name: str, value: Any, advice: str) -> float:
    if not isinstance(value, numbers.Real) or not 0 < float(value) < 1:
        raise InvalidArgument(f"{name} must lie strictly between 0 and 1, got {value!r}; {advice}")
    return float(value)


KL = FDivergence(name="kl", f=lambda s: s.exp() * s, integrand=_kl)
REVERSE_KL = FDivergence(name="reverse_kl", f=lambda s: -s, integrand=lambda log_p, log_q: _kl(log_q, log_p))
# Table 1 writes f = r log r - (r + 1) log((r + 1)/2), which is twice the textbook's divergence.
JS = _jensen_shannon("js", beta=0.5, scale=2.0)
SOFTENED_REVERSE_KL = FDivergence(
    name="softened_reverse_kl", f=lambda s: (s.exp() + 1) * (_softplus(-s) - _LOG_2), integrand=_softened_reverse_kl
)
JEFFREYS = FDivergence(
    name="jeffreys",
    f=lambda s: torch.expm1(s) * s,
    integrand=lambda log_p, log_q: _kl(log_p, log_q) + _kl(log_q, log_p),
)
# Table 1's 1 - sqrt(r) plus (r - 1)/2: the same divergence, and no term of the sum is negative.
SQUARED_HELLINGER = FDivergence(
    name="squared_hellinger", f=lambda s: torch.expm1(s / 2).square() / 2, integrand=_squared_hellinger
)
TOTAL_VARIATION = FDivergence(
    name="total_variation",
    f=lambda s: torch.expm1(s).abs() / 2,
    integrand=lambda log_p, log_q: (log_p.exp() - log_q.exp()).abs() / 2,
    smooth=False,
)

CATALOGUE = {
    entry.name: entry
    for entry in (KL, REVERSE_KL, JS, SOFTENED_REVERSE_KL, JEFFREYS, SQUARED_HELLINGER, TOTAL_VARIATION)
}
