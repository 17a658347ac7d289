"""Distillation by the Sinkhorn distance: over the samples of a batch, or over the classes of each sample.

Over the batch, q_i and p_i the student's and the teacher's probabilities of sample i,

    C_ij = |q_i - p_j|_1 + w |r_i - r_j|_2,     S = OT(q, p) - OT(q, q)/2 - OT(p, p)/2,

OT the optimum of min <P, C> + epsilon KL(P | uniform) over plans between the N samples, solved to a tolerance and
differentiated exactly (`transport.py`). S is 0 when the student is the teacher, and positive otherwise. It does not
know which teacher's row belongs to which student's (with w = 0, a shuffled teacher scores the same): it is an addition
to a loss that does.

Over the classes it is one problem a sample, q_i against p_i with a cost between classes, and can stand alone.

symbol    meaning                                              shape      unit
q, p      probabilities of student and teacher                 (N, K)
r, w      representations of the inputs, and their weight      (N, d)
P, C      plan and cost                                        (N, N)     C: L1 distance, 2 at most
epsilon   regularisation                                                  that of C

Source: Cui et al. 2024, "Sinkhorn Distance Minimization for Knowledge Distillation" (SinKD, arXiv 2402.17110); the
debiased form is Feydy et al.'s (arXiv 1810.08278).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pushforward._checks import check_choice, check_count, check_finite, check_positive, check_weight
from pushforward._interop import compute_dtype
from pushforward._typed import typed, typed_fields
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.lm.losses import Context, DistillationLoss, softened
from pushforward.lm.transport import between_classes, between_samples, warn_if_short
from pushforward.ot.solve import solve
from pushforward.training.distributed import gather

__all__ = ["SinkhornKD", "TokenCost"]

# The paper's code: so many normalisations of exp(-C/epsilon), whatever they reach, and this factor.
PUBLISHED_NORMALISATIONS, PUBLISHED_SCALE = 20, 0.001


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
            raise InvalidArgument(f"top_k is {self.top_k} but there are {len(self.embeddings)} tokens")
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
        chosen = self._points(tokens)
        distances = torch.cdist(chosen, chosen, compute_mode="donot_use_mm_for_euclid_dist") / self.mean
        costs = distances.new_ones(len(tokens), tokens.shape[1] + 1, tokens.shape[1] + 1)
        costs[:, :-1, :-1], costs[:, -1, -1] = distances, 0.0
        return costs

    def _points(self, tokens: Tensor) -> Tensor:
        # Rows are taken first: a vocabulary's whole matrix is large, and in computing precision larger.
        points = self.embeddings.detach()[tokens.to(self.embeddings.device)].to(tokens.device)
        return points.to(compute_dtype(tokens.device))


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
                _check_ground_cost(self.cost)
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
            return _published(q, p, self.epsilon)
        if self.support == "classes":
            return self._between_classes(q, p)
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
            return _assigned(q, p, alike)
        if self.value == "transport_cost":
            cost = torch.cdist(q, p, p=1.0).to(compute_dtype(q.device))
            solution = solve(cost if alike is None else cost + alike, epsilon=self.epsilon, tol=self.tol, throw=False)
            warn_if_short(float(solution.marginal_error), self.tol)
            return solution.transport_cost.to(q.dtype)
        return between_samples(q, p, alike, epsilon=self.epsilon, tol=self.tol, debiased=self.value == "divergence")

    def _between_classes(self, q: Tensor, p: Tensor) -> Tensor:
        if isinstance(self.cost, TokenCost):
            if q.shape[-1] != len(self.cost.embeddings):
                raise ShapeError(f"cost has {len(self.cost.embeddings)} tokens but the logits {q.shape[-1]} classes")
            tokens = (q.detach() + p).topk(self.cost.top_k, dim=-1).indices
            costs = self.cost.between(tokens)
            q, p = _with_bucket(q, tokens), _with_bucket(p, tokens)
        else:
            assert self.cost is not None
            k = q.shape[-1]
            if self.cost.shape != (k, k):
                raise ShapeError(f"cost has shape {tuple(self.cost.shape)} but the logits {k} classes: ({k}, {k})")
            costs = self.cost.detach().to(q.device, compute_dtype(q.device)).expand(len(q), k, k)
        return between_classes(q, p, costs, epsilon=self.epsilon, tol=self.tol)


def _check_ground_cost(cost: Tensor) -> None:
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


def _published(q: Tensor, p: Tensor, epsilon: float) -> Tensor:
    """The loss of the paper's code, whose marginals are ones, so that the value grows with the batch."""
    cost = torch.cdist(q, p, p=1.0)
    plan = torch.exp(-cost / epsilon)
    for _ in range(PUBLISHED_NORMALISATIONS):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return PUBLISHED_SCALE * (plan * cost).sum()


def _assigned(q: Tensor, p: Tensor, alike: Tensor | None) -> Tensor:
    """The mean of |q_i - p_s(i)|_1 + w |r_i - r_s(i)|_2 over the best permutation s."""
    with torch.no_grad():
        if q.shape[-1] == 2 and alike is None:  # points on a line: the smallest goes to the smallest
            s = torch.empty(len(q), dtype=torch.long, device=q.device)
            s[q[:, 0].argsort()] = p[:, 0].argsort()
        else:
            cost = torch.cdist(q, p, p=1.0).to(compute_dtype(q.device))
            s = torch.from_numpy(linear_sum_assignment((cost if alike is None else cost + alike).cpu().numpy())[1])
            s = s.to(q.device)
        moved = 0.0 if alike is None else alike[torch.arange(len(s), device=s.device), s].mean().to(q.dtype)
    return (q - p[s]).abs().sum(-1).mean() + moved


def _with_bucket(probabilities: Tensor, tokens: Tensor) -> Tensor:
    """The probabilities of the tokens and of the rest, (N, k + 1)."""
    kept = probabilities.gather(-1, tokens)
    return torch.cat([kept, (1 - kept.sum(-1, keepdim=True)).clamp_min(0.0)], -1)
