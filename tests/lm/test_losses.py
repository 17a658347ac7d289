"""Losses on logits: their values, their sums, what a mask leaves out, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pushforward import divergences
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.lm import chunked, losses
from pushforward.lm.losses import KD, Context, SquaredError
from pushforward.lm.sinkhorn import SinkhornKD


def logits(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_kl_is_torchs_with_the_squared_temperature():
    student, teacher = logits(7, 5, seed=0), logits(7, 5, seed=1)
    expected = 9.0 * torch.nn.functional.kl_div(
        (student / 3).log_softmax(-1), (teacher / 3).log_softmax(-1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(KD("kl", temperature=3.0)(student, teacher), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", sorted(divergences.CATALOGUE))
def test_every_divergence_has_its_gradient(name: str):
    teacher = logits(3, 4, seed=2)
    assert torch.autograd.gradcheck(lambda s: KD(name)(s, teacher), logits(3, 4, seed=3).requires_grad_())


def test_sums_and_weights():
    student, teacher = logits(6, 4, seed=4), logits(6, 4, seed=5)
    loss = 0.9 * KD("kl") + SinkhornKD() * 0.8 + KD("js")
    expected = 0.9 * KD("kl")(student, teacher) + 0.8 * SinkhornKD()(student, teacher) + KD("js")(student, teacher)
    torch.testing.assert_close(loss(student, teacher), expected)
    doubled = 2 * loss
    torch.testing.assert_close(doubled(student, teacher), 2 * expected)
    assert repr(0.9 * KD("kl") + 0.8 * SinkhornKD()) == (
        "0.9 * KD('kl', temperature=2) + 0.8 * SinkhornKD(epsilon=0.1, temperature=2)"
    )


def test_whether_a_loss_can_stand_alone():
    assert not SinkhornKD().pairs_samples
    assert (KD("kl") + SinkhornKD()).pairs_samples
    assert not (0.0 * KD("kl") + SinkhornKD()).pairs_samples
    assert SinkhornKD(support="classes", cost=1 - torch.eye(3)).pairs_samples


@pytest.mark.parametrize("loss", [KD("js"), SinkhornKD(), KD("kl") + SinkhornKD(representation_weight=0.5)], ids=repr)
def test_masked_positions_have_no_part(loss):
    student, teacher = logits(2, 5, 4, seed=6).requires_grad_(), logits(2, 5, 4, seed=7)
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]])
    context = Context(representations=logits(2, 5, 3, seed=8))
    value = loss(student, teacher, mask, context=context)
    kept = mask.bool()
    rows = Context(representations=context.representations[kept])
    torch.testing.assert_close(value, loss(student[kept], teacher[kept], context=rows))
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.equal(gradient.abs().sum(-1) > 0, kept)
    spoilt = torch.where(kept[..., None], student.detach(), torch.nan)
    torch.testing.assert_close(loss(spoilt, teacher, mask, context=context), value.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype):
    student, teacher = logits(8, 6, seed=9).to(dtype), logits(8, 6, seed=10).to(dtype)
    loss = KD("kl") + SinkhornKD()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype is torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()))


def test_no_gradient_flows_to_the_teacher():
    student, teacher = logits(4, 3, seed=11).requires_grad_(), logits(4, 3, seed=12).requires_grad_()
    (KD("kl") + SinkhornKD())(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_forbidden_tokens_are_no_error():
    student, teacher = logits(3, 4, seed=13), logits(3, 4, seed=14)
    student[:, 0] = teacher[:, 0] = -torch.inf
    assert torch.isfinite((KD("kl") + SinkhornKD())(student, teacher))


def test_what_is_refused():
    student, teacher = logits(4, 3, seed=15), logits(4, 3, seed=16)
    loss = KD("kl") + SinkhornKD()
    with pytest.raises(
        ShapeError, match=r"student_logits has shape \(4, 3\) but teacher_logits \(4, 5\).*match_widths"
    ):
        loss(student, logits(4, 5, seed=0))
    with pytest.raises(ShapeError, match=r"mask has shape \(3,\) but the logits have positions \(4,\)"):
        loss(student, teacher, torch.ones(3))
    with pytest.raises(InvalidArgument, match="mask that is False everywhere"):
        loss(student, teacher, torch.zeros(4))
    with pytest.raises(InvalidArgument, match="student_logits has dtype torch.int64"):
        loss(torch.ones(4, 3, dtype=torch.long), teacher)
    with pytest.raises(InvalidArgument, match="teacher_logits must be a Tensor, got a list"):
        loss(student, [[1.0]])
    with pytest.raises(InvalidArgument, match="no divergence is named 'k1'"):
        KD("k1")
    with pytest.raises(InvalidArgument, match="temperature must be a positive"):
        KD("kl", temperature=0.0)
    with pytest.raises(InvalidArgument, match="weight of a loss must be a finite number of at least 0, got -1"):
        KD("kl") * -1
    with pytest.raises(InvalidArgument, match="must be a DistillationLoss, got a int"):
        KD("kl") + 1
    with pytest.raises(ShapeError, match=r"group_ids has shape \(3,\)"):
        loss(student, teacher, context=Context(group_ids=torch.zeros(3)))


@pytest.mark.parametrize(("name", "bad"), [("student", torch.nan), ("teacher", torch.inf)])
def test_a_bad_logit_is_named(name: str, bad: float):
    both = {"student": logits(4, 3, seed=17), "teacher": logits(4, 3, seed=18)}
    both[name][2, 1] = bad
    with pytest.raises(NonFiniteError, match=rf"{name}_logits\[2, 1\] is"):
        KD("kl")(both["student"], both["teacher"])
    with pytest.raises(NonFiniteError, match=rf"{name}_logits\[2, 1\] is"):
        SinkhornKD()(both["student"], both["teacher"])


@pytest.mark.parametrize(
    "loss",
    [
        KD("kl"),
        SinkhornKD(),
        SinkhornKD(epsilon=0),
        SinkhornKD(value="transport_cost"),
        SinkhornKD(published=True),
        SinkhornKD(support="classes", cost=1 - torch.eye(3)),
        SquaredError(),
        KD("js") + SinkhornKD(epsilon=0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("masked", [False, True])
def test_every_loss_names_a_logit_that_is_no_number(loss, masked: bool):
    student, teacher = logits(4, 3, seed=17), logits(4, 3, seed=18)
    mask = torch.tensor([True, False, True, True]) if masked else None
    student[2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"student_logits\[2, 1\] is nan"):
        loss(student, teacher, mask)


def test_one_column_has_no_softmax_but_a_score_to_learn():
    student, teacher = logits(5, 1, seed=19), logits(5, 1, seed=20)
    for loss in (KD(), SinkhornKD(), 0.9 * KD() + SquaredError()):
        with pytest.raises(InvalidArgument, match=r"softmax over one column is 1 .* SquaredError\(\)"):
            loss(student, teacher)
    torch.testing.assert_close(SquaredError()(student, teacher), ((student - teacher) ** 2).mean())
    assert torch.autograd.gradcheck(lambda s: SquaredError()(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("name", [[], None, 3])
def test_what_is_no_name_of_a_divergence_is_refused(name):
    with pytest.raises(InvalidArgument, match="no divergence is named"):
        KD(name)


@pytest.fixture
def chunks_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "SMALL", 0)
    monkeypatch.setattr(chunked, "CHUNK", 5 * 4)


def both_ways(loss, monkeypatch: pytest.MonkeyPatch, student, *others):
    """Value and gradient by chunks and by the plain formula."""
    found = []
    for small in (0, 2**20):
        monkeypatch.setattr(losses, "SMALL", small)
        leaf = student.detach().clone().requires_grad_()
        value = loss(leaf, *others)
        (1.5 * value).backward()
        found.append((value.detach(), leaf.grad))
    return found


@pytest.mark.usefixtures("chunks_of_five")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", sorted(divergences.CATALOGUE))
def test_chunks_give_the_plain_value_and_gradient(name: str, masked: bool, monkeypatch: pytest.MonkeyPatch):
    student, teacher = logits(3, 6, 4, seed=21), logits(3, 6, 4, seed=22)
    mask = torch.rand(3, 6, generator=torch.Generator().manual_seed(23)) < 0.7 if masked else None
    if mask is not None:
        student[~mask] = torch.nan  # of no concern
    (value, gradient), (plain_value, plain_gradient) = both_ways(
        KD(name, temperature=1.7), monkeypatch, student, teacher, mask
    )
    torch.testing.assert_close(value, plain_value, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("chunks_of_five")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_keep_the_precision_of_single(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    student, teacher = logits(20, 4, seed=24).to(dtype), logits(20, 4, seed=25).to(dtype)
    loss = 0.9 * KD("kl") + 0.5 * SinkhornKD()
    (value, gradient), (plain_value, plain_gradient) = both_ways(loss, monkeypatch, student, teacher)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(value, plain_value, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, plain_gradient, rtol=2e-6 if dtype is torch.float32 else 8e-3, atol=1e-6)


@pytest.mark.usefixtures("chunks_of_five")
def test_chunks_are_differentiated_twice_and_their_graph_may_be_kept():
    teacher, student = logits(11, 4, seed=26), logits(11, 4, seed=27).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda s: KD("js")(s, teacher), student)
    value = KD("js")(student, teacher)
    first, second = (torch.autograd.grad(value, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    teacher[10, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"teacher_logits\[10, 2\] is nan"):
        KD("js")(student, teacher)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["kl", "js"])
def test_nothing_of_the_logits_size_is_made_but_their_gradient(name: str, masked: bool):
    rows, width = 4096, 512  # twice what is computed in one piece
    made: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and not func.is_view and not func._schema.is_mutable:
                made.append(out.numel())
            return out

    student, teacher = logits(rows, width, seed=28).float().requires_grad_(), logits(rows, width, seed=29).float()
    mask = torch.arange(rows) % 3 > 0 if masked else None
    with Sizes():
        KD(name)(student, teacher, mask).backward()
    assert sum(size == rows * width for size in made) == 1
    assert sorted(made)[-2] <= chunked.CHUNK
