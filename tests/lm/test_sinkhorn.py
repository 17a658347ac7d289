"""The Sinkhorn distance against the paper's equations, a slow solver that shares no code, and its own laws."""

from __future__ import annotations

import itertools
import warnings
import weakref

import pytest
import torch
from torch import Tensor

from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.lm import between_samples
from pushforward.lm.losses import Context
from pushforward.lm.sinkhorn import SinkhornKD, TokenCost
from pushforward.ot import small

T = 2.0


def logits(*shape: int, seed: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def l1(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] - y[None]).abs().sum(-1)


def reference_plan(cost: Tensor, a: Tensor, b: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Plain log-domain Sinkhorn: P, and f and g of the optimum."""
    f, g, steps = torch.zeros_like(a), torch.zeros_like(b), 0
    while steps < 5000:
        f = -epsilon * torch.logsumexp(b.log() + (g - cost) / epsilon, 1)
        last, g = g, -epsilon * torch.logsumexp(a.log()[:, None] + (f[:, None] - cost) / epsilon, 0)
        steps += 1
        if float((g - last).abs().max()) < 1e-10 * epsilon:
            break
    return a[:, None] * b * torch.exp((f[:, None] + g - cost) / epsilon), f, g


def reference_optimum(x: Tensor, y: Tensor, epsilon: float, alike: Tensor | float = 0.0) -> Tensor:
    """OT(x, y) of points of equal weight, with the envelope theorem's gradient."""
    cost = l1(x, y) + alike
    a, b = (torch.full((len(z),), 1 / len(z), dtype=torch.float64) for z in (x, y))
    plan, f, g = reference_plan(cost.detach(), a, b, epsilon)
    moved = (plan * cost).sum()
    return (a * f).sum() + (b * g).sum() + moved - moved.detach()


def reference(student: Tensor, teacher: Tensor, epsilon: float, alike: Tensor | float = 0.0) -> Tensor:
    q, p = (student / T).softmax(-1), (teacher / T).softmax(-1)
    across = reference_optimum(q, p, epsilon, alike)
    return across - 0.5 * (reference_optimum(q, q, epsilon, alike) + reference_optimum(p, p, epsilon, alike))


def value_and_gradient(loss, student: Tensor, *others) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = loss(student, *others)
    return value.detach(), torch.autograd.grad(value, student)[0]


@pytest.mark.parametrize("classes", [2, 7])
def test_the_published_form_is_the_papers(classes: int):
    """Equations 3 to 7 with the constants of the paper's code, written out."""

    def transcription(student: Tensor, teacher: Tensor) -> Tensor:
        q, p = torch.softmax(student / T, 1), torch.softmax(teacher / T, 1)
        cost = torch.stack([torch.stack([torch.abs(qi - pj).sum() for pj in p]) for qi in q])
        plan = torch.exp(-cost / 0.1)
        for _ in range(20):
            plan = plan / torch.sum(plan, dim=1, keepdim=True)
            plan = plan / torch.sum(plan, dim=0, keepdim=True)
        return 0.001 * torch.sum(plan * cost)

    student, teacher = logits(12, classes, seed=0), logits(12, classes, seed=1)
    ours = value_and_gradient(SinkhornKD(published=True), student, teacher)
    theirs = value_and_gradient(transcription, student, teacher)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.03])
def test_value_and_gradient_are_the_slow_solvers(classes: int, epsilon: float):
    student, teacher = logits(20, classes, seed=2), logits(20, classes, seed=3)
    ours = value_and_gradient(SinkhornKD(epsilon=epsilon, tol=1e-11), student, teacher)
    slow = value_and_gradient(lambda s, t: reference(s, t, epsilon), student, teacher)
    torch.testing.assert_close(ours, slow, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 5])
def test_gradients_are_the_values(classes: int):
    teacher = logits(6, classes, seed=4)
    for value in ("divergence", "optimum", "transport_cost"):
        loss = SinkhornKD(tol=1e-12, value=value)
        assert torch.autograd.gradcheck(
            lambda s, loss=loss: loss(s, teacher), logits(6, classes, seed=5).requires_grad_()
        )


def test_the_transport_cost_is_that_of_the_plan():
    student, teacher = logits(9, 4, seed=6), logits(9, 4, seed=7)
    q, p = (student / T).softmax(-1), (teacher / T).softmax(-1)
    weights = torch.full((9,), 1 / 9, dtype=torch.float64)
    plan, *_ = reference_plan(l1(q, p), weights, weights, 0.1)
    value = SinkhornKD(value="transport_cost", tol=1e-11)(student, teacher)
    torch.testing.assert_close(value, (plan * l1(q, p)).sum(), rtol=1e-8, atol=0)


def test_two_classes_take_the_line_and_agree_with_the_matrix(monkeypatch: pytest.MonkeyPatch):
    student, teacher = logits(64, 2, seed=8), logits(64, 2, seed=9)
    student[10:20] = student[0]  # ties
    on_line = value_and_gradient(SinkhornKD(tol=1e-11), student, teacher)
    monkeypatch.setattr(between_samples, "_samples", lambda q, p, alike, epsilon: between_samples._InSpace(q, p, alike))
    torch.testing.assert_close(
        on_line, value_and_gradient(SinkhornKD(tol=1e-11), student, teacher), rtol=1e-8, atol=1e-11
    )


@pytest.mark.parametrize("classes", [2, 5])
def test_zero_and_flat_where_the_student_is_the_teacher(classes: int):
    teacher = logits(30, classes, seed=10)
    value, gradient = value_and_gradient(SinkhornKD(tol=1e-10), teacher, teacher)
    assert abs(float(value)) < 1e-10
    assert float(gradient.abs().max()) < 1e-10
    biased, slope = value_and_gradient(SinkhornKD(tol=1e-10, value="optimum"), teacher, teacher)
    assert float(slope.abs().max()) > 1e-4
    assert float(biased) > 0.01


def test_a_shuffled_teacher_scores_the_same_unless_inputs_count():
    student, teacher, inputs = logits(16, 3, seed=11), logits(16, 3, seed=12), logits(16, 4, seed=13)
    shuffle = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    plain = SinkhornKD(tol=1e-10)
    torch.testing.assert_close(plain(student, teacher), plain(student, teacher[shuffle]), rtol=1e-7, atol=1e-10)
    aware, context = SinkhornKD(tol=1e-10, representation_weight=1.0), Context(representations=inputs)
    right, wrong = aware(teacher + 0.1, teacher, context=context), aware(teacher[shuffle], teacher, context=context)
    assert float(right) < 0.1 * float(wrong)


def test_inputs_count_as_the_slow_solver_says():
    student, teacher, inputs = logits(10, 2, seed=14), logits(10, 2, seed=15), logits(10, 3, seed=16)
    alike = 0.5 * torch.linalg.vector_norm(inputs[:, None] - inputs[None], dim=-1)
    loss = SinkhornKD(epsilon=0.3, tol=1e-11, representation_weight=0.5)
    ours = value_and_gradient(lambda s, t: loss(s, t, context=Context(representations=inputs)), student, teacher)
    slow = value_and_gradient(lambda s, t: reference(s, t, 0.3, alike), student, teacher)
    torch.testing.assert_close(ours, slow, rtol=1e-6, atol=1e-9)


def test_groups_are_matched_each_by_itself():
    student, teacher = logits(11, 4, seed=17), logits(11, 4, seed=18)
    groups, loss = torch.tensor([5, 5, 5, 1, 1, 1, 1, 1, 5, 9, 9]), SinkhornKD(tol=1e-11)
    parts = [(groups == g).double().mean() * loss(student[groups == g], teacher[groups == g]) for g in (5, 1, 9)]
    torch.testing.assert_close(loss(student, teacher, context=Context(group_ids=groups)), sum(parts))


@pytest.mark.parametrize("classes", [2, 3])
def test_without_regularisation_it_is_the_best_assignment(classes: int):
    student, teacher = logits(6, classes, seed=19), logits(6, classes, seed=20)
    cost = l1((student / T).softmax(-1), (teacher / T).softmax(-1))
    best = min(float(sum(cost[i, j] for i, j in enumerate(s))) / 6 for s in itertools.permutations(range(6)))
    assert float(SinkhornKD(epsilon=0)(student, teacher)) == pytest.approx(best, rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: SinkhornKD(epsilon=0)(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 40])
@pytest.mark.parametrize("epsilon", [0.1, 0.01, 0.001])
def test_finite_at_every_epsilon(dtype: torch.dtype, classes: int, epsilon: float):
    student, teacher = logits(32, classes, seed=21, scale=4.0), logits(32, classes, seed=22, scale=4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a plan short of its tolerance would warn
        value, gradient = value_and_gradient(SinkhornKD(epsilon=epsilon), student.to(dtype), teacher.to(dtype))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    exact = SinkhornKD(epsilon=epsilon)(student.to(dtype).double(), teacher.to(dtype).double())
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=1e-5)


def test_the_published_form_divides_by_zero_where_ours_does_not():
    student, teacher = torch.full((8, 2), -20.0), logits(8, 2, seed=23).float()
    student[:, 0] = 20.0
    teacher[:, 0] -= 20.0  # every cost is nearly 2, and exp(-2/0.01) is 0 in single precision
    with pytest.raises(NonFiniteError, match="NaN although all logits are finite"):
        SinkhornKD(epsilon=0.01, published=True)(student, teacher)
    assert float(SinkhornKD(epsilon=0.01)(student, teacher)) == pytest.approx(2.0, abs=0.1)


def kept_for_backward(loss: SinkhornKD, student: Tensor, teacher: Tensor) -> int:
    """Numbers that the graph of a loss holds."""

    class Box:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    boxes: weakref.WeakSet[Box] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Box:
        box = Box(tensor)
        boxes.add(box)
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        value = loss(student, teacher)
    assert value.requires_grad
    return sum(box.tensor.numel() for box in boxes)


def test_what_is_kept_for_the_backward_pass_is_one_gradient():
    student, teacher = logits(256, 5, seed=24).requires_grad_(), logits(256, 5, seed=25)
    assert kept_for_backward(SinkhornKD(), student, teacher) <= 4 * student.numel()
    assert kept_for_backward(SinkhornKD(published=True), student, teacher) > 20 * 256 * 256


def test_between_classes_is_one_problem_a_sample():
    student, teacher, places = logits(5, 4, seed=26), logits(5, 4, seed=27), logits(4, 2, seed=28)
    cost = torch.linalg.vector_norm(places[:, None] - places[None], dim=-1)
    q, p = (student / T).softmax(-1), (teacher / T).softmax(-1)

    def optimum(a: Tensor, b: Tensor) -> float:
        _, f, g = reference_plan(cost, a, b, 0.5)
        return float((a * f).sum() + (b * g).sum())

    slow = sum(optimum(a, b) - 0.5 * (optimum(a, a) + optimum(b, b)) for a, b in zip(q, p, strict=True)) / 5
    loss = SinkhornKD(support="classes", cost=cost, epsilon=0.5, tol=1e-11)
    assert float(loss(student, teacher)) == pytest.approx(slow, rel=1e-7)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())
    assert abs(float(loss(teacher, teacher))) < 1e-9


def test_a_near_synonym_is_a_near_miss():
    embeddings = torch.eye(6, dtype=torch.float64)
    embeddings[1] = embeddings[0] + 0.05 * embeddings[5]
    loss = SinkhornKD(support="classes", cost=TokenCost(embeddings=embeddings, top_k=3), epsilon=0.01)
    teacher = torch.full((1, 6), -20.0, dtype=torch.float64)
    synonym, stranger = teacher.clone(), teacher.clone()
    teacher[0, 0], synonym[0, 1], stranger[0, 2] = 20.0, 20.0, 20.0
    assert float(loss(synonym, teacher)) < 0.1 * float(loss(stranger, teacher))


def test_the_bucket_keeps_the_mass_that_the_likeliest_tokens_leave():
    student, teacher = logits(7, 30, seed=29), logits(7, 30, seed=30)
    loss = SinkhornKD(support="classes", cost=TokenCost(embeddings=logits(30, 8, seed=31), top_k=5), tol=1e-11)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())
    assert abs(float(loss(teacher, teacher))) < 1e-9
    whole = SinkhornKD(support="classes", cost=TokenCost(embeddings=logits(30, 8, seed=31), top_k=30), tol=1e-11)
    assert float(whole(student.detach(), teacher)) > 0


def test_a_plan_that_falls_short_is_said_to():
    with pytest.warns(RuntimeWarning, match="marginal error of .*, asked 1e-06"):
        small.warn_if_short(1e-3, 1e-6)


def test_what_is_refused():
    with pytest.raises(InvalidArgument, match="epsilon must be a finite number of at least 0"):
        SinkhornKD(epsilon=-0.1)
    with pytest.raises(InvalidArgument, match="value must be one of"):
        SinkhornKD(value="dual")
    with pytest.raises(InvalidArgument, match="needs cost"):
        SinkhornKD(support="classes")
    with pytest.raises(InvalidArgument, match='needs support="classes"'):
        SinkhornKD(cost=torch.eye(3))
    with pytest.raises(InvalidArgument, match="published=True is one loss"):
        SinkhornKD(published=True, value="optimum")
    with pytest.raises(InvalidArgument, match="the call has no representations"):
        SinkhornKD(representation_weight=1.0)(logits(3, 2, seed=0), logits(3, 2, seed=1))
    with pytest.raises(ShapeError, match=r"cost has shape \(3, 3\) but the logits 4 classes"):
        SinkhornKD(support="classes", cost=torch.eye(3))(logits(3, 4, seed=0), logits(3, 4, seed=1))
    with pytest.raises(InvalidArgument, match=r"must be symmetric, but cost\[0, 2\] is 3 and cost\[2, 0\] 0"):
        SinkhornKD(support="classes", cost=torch.tensor([[0.0, 1, 3], [1, 0, 1], [0, 1, 0]]))
    with pytest.raises(ShapeError, match=r"cost has shape \(3, 4\)"):
        SinkhornKD(support="classes", cost=torch.zeros(3, 4))
    with pytest.raises(NonFiniteError, match=r"cost\[0, 0\] is nan"):
        SinkhornKD(support="classes", cost=torch.full((2, 2), torch.nan))
    with pytest.raises(InvalidArgument, match="top_k is 9 but embeddings has 6 rows"):
        TokenCost(embeddings=torch.eye(6), top_k=9)
    with pytest.raises(InvalidArgument, match="embeddings are all the same"):
        TokenCost(embeddings=torch.ones(6, 3), top_k=2)
