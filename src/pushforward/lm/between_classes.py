"""What the classes of one sample cost against one another: Sinkhorn divergences of two distributions over classes.

    S = OT(q, p) - OT(q, q)/2 - OT(p, p)/2,     OT = min <P, C> + epsilon KL(P | a b^T)

Each sample is a problem of its own with weights a = q_i, b = p_i. By the envelope theorem dS/dq_i is the difference of
the row potentials of (q_i, p_i) and (q_i, q_i); it is taken in the forward pass, and it alone is kept.

symbol    meaning                                              shape
q, p      probabilities of student and teacher                 (N, K)
C         costs between the classes of each sample             (N, K, K)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pushforward._checks import check_count, check_finite
from pushforward._interop import compute_dtype
from pushforward._typed import typed, typed_fields
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.problem import Problem
from pushforward.ot.small import optimum, warn_if_short

__all__ = ["TokenCost", "between_classes", "check_ground_cost", "with_costs"]


@typed_fields
@dataclass(frozen=True, kw_only=True)  # no slots: `mean` is kept once computed
class TokenCost:
    """The cost between tokens of a vocabulary: the distance of their embeddings over its mean.

    A sample's problem is solved between its `top_k` most probable tokens (by teacher and student together) and one
    bucket for the rest, which lies at the mean distance 1 from all of them.

    Args:
        embeddings: (K, h), for instance the rows of the model's output layer.
        top_k: The number of tokens outside the bucket.
    """

    embeddings: Tensor
    top_k: int = 32

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2:
            raise ShapeError(f"embeddings has shape {tuple(self.embeddings.shape)}; one row a token is needed")
        if check_count("top_k", self.top_k) > len(self.embeddings):
            raise InvalidArgument(f"top_k is {self.top_k} but embeddings has {len(self.embeddings)} rows, one a token")
        check_finite("embeddings", self.embeddings)
        if self.mean == 0:
            raise InvalidArgument("embeddings are all the same, so that no token is nearer to another than the rest")

    @functools.cached_property
    def mean(self) -> float:
        """The mean distance of two tokens, over all or over 512 spread evenly over a larger vocabulary."""
        count = len(self.embeddings)
        some = self._points(torch.linspace(0, count - 1, min(count, 512)).long())
        return float(torch.cdist(some, some).sum()) / max(len(some) * (len(some) - 1), 1)

    @typed
    def between(self, tokens: Tensor) -> Tensor:
        """The costs between the tokens of each sample and the bucket.

        Args:
            tokens: Token numbers, (N, k).

        Returns:
            (N, k + 1, k + 1), in units of the mean distance of two tokens.
        """
        if tokens.ndim != 2 or tokens.is_floating_point():
            raise ShapeError(f"tokens has shape {tuple(tokens.shape)}, {tokens.dtype}; integers (N, k) are needed")
        chosen = self._points(tokens)
        distances = torch.cdist(chosen, chosen, compute_mode="donot_use_mm_for_euclid_dist") / self.mean
        costs = distances.new_ones(len(tokens), tokens.shape[1] + 1, tokens.shape[1] + 1)
        costs[:, :-1, :-1], costs[:, -1, -1] = distances, 0.0
        return costs

    def _points(self, tokens: Tensor) -> Tensor:
        # Rows are taken first: a vocabulary's whole matrix is large, and in computing precision larger.
        points = self.embeddings.detach()[tokens.to(self.embeddings.device)].to(tokens.device)
        return points.to(compute_dtype(tokens.device))


def check_ground_cost(cost: Tensor) -> None:
    """Raise unless the costs are symmetric: between classes, both self-problems are solved as one."""
    check_finite("cost", cost)
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1]:
        raise ShapeError(f"cost has shape {tuple(cost.shape)}; one row and one column a class are needed")
    if not torch.allclose(cost, cost.T):
        i, j = divmod(int((cost - cost.T).abs().argmax()), len(cost))
        raise InvalidArgument(
            f"cost must be symmetric, but cost[{i}, {j}] is {float(cost[i, j]):g} and cost[{j}, {i}] "
            f"{float(cost[j, i]):g}"
        )


def with_costs(q: Tensor, p: Tensor, cost: Tensor | TokenCost) -> tuple[Tensor, Tensor, Tensor]:
    """The distributions whose classes are compared, and the costs between them.

    Args:
        q, p: Probabilities, (N, K).
        cost: Between the K classes.

    Returns:
        q and p as they came with costs (N, K, K), or over each sample's likeliest tokens and the bucket for the rest,
        (N, k + 1), with costs (N, k + 1, k + 1).

    Raises:
        ShapeError: `cost` is for another number of classes.
    """
    k = q.shape[-1]
    if isinstance(cost, TokenCost):
        if k != len(cost.embeddings):
            raise ShapeError(f"cost has {len(cost.embeddings)} tokens but the logits {k} classes")
        tokens = (q.detach() + p).topk(cost.top_k, dim=-1).indices
        return _with_bucket(q, tokens), _with_bucket(p, tokens), cost.between(tokens)
    if cost.shape != (k, k):
        raise ShapeError(f"cost has shape {tuple(cost.shape)} but the logits {k} classes: ({k}, {k})")
    return q, p, cost.detach().to(q.device, compute_dtype(q.device)).expand(len(q), k, k)


def _with_bucket(probabilities: Tensor, tokens: Tensor) -> Tensor:
    """The probabilities of the tokens and of the rest, (N, k + 1)."""
    kept = probabilities.gather(-1, tokens)
    return torch.cat([kept, (1 - kept.sum(-1, keepdim=True)).clamp_min(0.0)], -1)


def between_classes(q: Tensor, p: Tensor, costs: Tensor, *, epsilon: float, tol: float) -> Tensor:
    """The mean over samples of S between the weights q_i and p_i on the classes.

    Args:
        q, p: Probabilities, (N, K); the gradient flows to q only.
        costs: The costs between the classes of each sample, (N, K, K), symmetric, in computing precision.
        epsilon: Regularisation, in units of the costs.
        tol: L1 marginal error to which plans are solved; there is a warning where it is not reached.

    Returns:
        A scalar in q's dtype.
    """
    return _BetweenClasses.apply(q, p.detach(), costs, epsilon, tol)


class _BetweenClasses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, p: Tensor, costs: Tensor, epsilon: float, tol: float) -> Tensor:
        a, b = q.to(costs.dtype), p.to(costs.dtype)
        geometry = DenseGeometry.of(costs)
        # Softmax in float32 sums to one within rounding only, and a plan keeps mass.
        a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
        across = optimum(Problem(geometry=geometry, a=a, b=b, epsilon=epsilon), tol)
        own_q = optimum(Problem(geometry=geometry, a=a, b=a, epsilon=epsilon), tol, symmetric=True)
        own_p = optimum(Problem(geometry=geometry, a=b, b=b, epsilon=epsilon), tol, symmetric=True)
        warn_if_short(max(solved.error for solved in (across, own_q, own_p)), tol)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(((across.f - own_q.f) / len(q)).to(q.dtype))
        return (across.value - 0.5 * (own_q.value + own_p.value)).mean().to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return bars[0] * ctx.saved_tensors[0], None, None, None, None
