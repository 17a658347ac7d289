"""Calls that no caller should make: an exception or a harmless answer, never the end of the interpreter.

Under a sanitizer they see reads out of bounds, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

N, M = 3, 4
REFUSED = (TypeError, ValueError)


def good(batch: int = 1, n: int = N, m: int = M) -> dict[str, list[Any]]:
    """Arguments of every function that are right: inputs, then outputs, then threads."""
    one, starts = np.ones, np.arange(n + 1, dtype=np.int32) * m
    pattern, entries = [starts, np.tile(np.arange(m, dtype=np.int32), n)], n * m
    cost, potentials = one((batch, n, m)), [one((batch, n)), one((batch, m))]
    return {
        "build": [cost, one((batch, m)), one((batch, n)), 1.0, 1.0, one(batch), *potentials, one(cost.shape), None, 1],
        "marginals": [cost, *potentials, *potentials, 1.0, one((batch, n)), one((batch, m)), 1],
        "find_near": [cost, one(n), one(m), 1.0, 1],
        "narrow": [*pattern, one(entries), one(n), one(m), 1.0, 1],
        "fill": [*pattern, one(entries), one(n), one(m), one(n), 1.0, one(entries), one(n), one(m), 1],
    }


OUTPUTS = {"build": (6, 7, 8), "marginals": (6, 7), "fill": (7, 8, 9), "descend": (3, 4, 5, 6, 10, 11)}
ARRAYS = [(name, k) for name, given in good().items() for k, x in enumerate(given) if isinstance(x, np.ndarray)]


def plans(native: Any, kind: str, n: int = N, m: int = M) -> Any:
    given = good(1, n, m)
    if kind == "dense":
        return native.Plans.dense(given["build"][0] / m)
    if kind == "sparse":
        return native.Plans.sparse(given["fill"][2], *given["fill"][:2], m)
    left = np.ones((1, n))
    return native.Plans.grid([np.ones((n, n))], left, left if kind == "separable" else None)


def asked(n: int, m: int, steps: int = 2) -> list[Any]:
    """Right arguments of `descend`."""
    a, b, state = np.full((1, n), 1 / n), np.full((1, m), 1 / m), np.array([[1.0, 0.0, np.inf, 2.0, 0.0]])
    marginals, scalings = [a, b, np.ones(1)], [np.ones((1, m)), np.ones((1, n)), b * np.linspace(0.5, 2, m)]
    outputs = [np.zeros((1, steps, 4)), np.zeros((1, 5), dtype=np.int64)]
    return [*marginals, *scalings, state, [1e-9, 0.3, 0.03, 100.0, 1e9], 500, 1 << 40, *outputs, 1.0, 1]


def square(kind: str) -> tuple[int, int]:
    return (N, N) if kind in ("separable", "factors") else (N, M)


KINDS = pytest.mark.parametrize("kind", ["dense", "sparse", "separable", "factors"])
DESCENT = [k for k, x in enumerate(asked(N, M)) if isinstance(x, np.ndarray)]


def misaligned(x: np.ndarray) -> np.ndarray:
    return np.frombuffer(bytearray(x.nbytes + 1), x.dtype, x.size, offset=1).reshape(x.shape)


WRONG = {
    "misaligned": misaligned,
    "too short": lambda x: x[..., :-1].copy(),
    "too long": lambda x: np.concatenate([x, x], axis=-1),
    "an axis more": lambda x: x[None],
    "an axis less": lambda x: x.reshape(-1)[0].reshape(()),
    "nothing": lambda x: x[..., :0].copy(),
    "objects": lambda x: x.astype(object),
    "complex": lambda x: x.astype(complex),
    "swapped bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "text": lambda x: "text",
}
CONVERTED = {
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "float32": lambda x: x.astype(np.float32),
    "int16": lambda x: np.nan_to_num(x, posinf=9).astype(np.int16),
}


def read_only(x: np.ndarray) -> np.ndarray:
    return np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape)


def test_what_is_right_is_taken(compiled):
    for name, given in good().items():
        getattr(compiled, name)(*given)
    for kind in ("dense", "sparse", "separable", "factors"):
        plans(compiled, kind, *square(kind)).descend(*asked(*square(kind)))


# The length of narrow's g is its number of columns: a longer one is right.
WRONG_ARRAYS = [(*array, how) for array in ARRAYS for how in WRONG if (*array, how) != ("narrow", 4, "too long")]


@pytest.mark.parametrize(("name", "k", "how"), WRONG_ARRAYS)
def test_wrong_arrays_are_refused(compiled, name, k, how):
    given = good()[name]
    given[k] = WRONG[how](given[k])
    with pytest.raises(REFUSED):
        getattr(compiled, name)(*given)


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("k", DESCENT)
@KINDS
def test_a_descent_refuses_wrong_arrays(compiled, kind, k, how):
    given = asked(*square(kind))
    given[k] = WRONG[how](given[k])
    if k == 10 and how == "nothing":
        plans(compiled, kind, *square(kind)).descend(*asked(*square(kind), steps=0))
        given[k] = np.zeros((1, 0, 3))
    with pytest.raises(REFUSED):
        plans(compiled, kind, *square(kind)).descend(*given)


@pytest.mark.parametrize("how", [*CONVERTED, "read-only"])
def test_outputs_are_not_converted_silently(compiled, how):
    change = {**CONVERTED, "read-only": read_only}[how]
    for name, places in OUTPUTS.items():
        for k in places:
            given = asked(N, M) if name == "descend" else good()[name]
            changed = change(given[k])
            if changed.flags.c_contiguous and changed.flags.writeable and changed.dtype == given[k].dtype:
                continue  # the layout is that of one number
            given[k] = changed
            with pytest.raises(TypeError):
                (plans(compiled, "dense").descend if name == "descend" else getattr(compiled, name))(*given)


@pytest.mark.parametrize("how", CONVERTED)
def test_inputs_of_other_kinds_give_the_same(compiled, how):
    for name in ("find_near", "narrow"):
        given = good()[name]
        changed = [CONVERTED[how](x) if isinstance(x, np.ndarray) and x.dtype == float else x for x in given]
        for here, there in zip(getattr(compiled, name)(*changed), getattr(compiled, name)(*given), strict=True):
            np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("threads", [0, -1, 1000])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 40, 170), (7, 2, 3)], ids=str)
def test_any_number_of_threads_serves(compiled, sizes, threads):
    one, two = good(*sizes), good(*sizes)
    for name in ("build", "marginals") if sizes[0] > 1 else one:
        one[name][-1] = threads
        getattr(compiled, name)(*one[name])
        getattr(compiled, name)(*two[name])
        for k in OUTPUTS.get(name, ()):
            np.testing.assert_allclose(one[name][k], two[name][k], rtol=1e-13)


@pytest.mark.parametrize("sizes", [(0, 2, 2), (1, 0, 2), (1, 2, 0), (1, 0, 0), (0, 0, 0)], ids=str)
def test_nothing_at_all(compiled, sizes):
    for name, given in good(*sizes).items():
        if sizes[0] == 1 or name in ("build", "marginals"):
            getattr(compiled, name)(*given)
    with pytest.raises(ValueError, match="at least one"):
        compiled.Plans.dense(np.ones(sizes))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0])
def test_numbers_that_are_none(compiled, value):
    for name in good():
        for k, x in enumerate(good()[name]):
            given = good()[name]
            if isinstance(x, np.ndarray) and x.dtype == float:
                given[k] = np.full_like(x, value)
            elif isinstance(x, float):
                given[k] = value
            getattr(compiled, name)(*given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e18, 1e300, 0.0])
@KINDS
def test_a_descent_among_numbers_that_are_none(compiled, kind, value):
    n, m = square(kind)
    for k in DESCENT[:-1]:
        given = asked(n, m, steps=12)
        given[k] = np.full_like(given[k], value)
        plans(compiled, kind, n, m).descend(*given)
        assert given[11][0, 1:3].sum() <= 12
    given = asked(n, m)
    given[7] = [value] * 5
    plans(compiled, kind, n, m).descend(*given)


@pytest.mark.parametrize("settings", [[], [1.0] * 4, [1.0] * 6, None, ["x"] * 5])
def test_a_wrong_number_of_settings(compiled, settings):
    given = asked(N, M)
    given[7] = settings
    with pytest.raises(REFUSED):
        plans(compiled, "dense").descend(*given)


@pytest.mark.parametrize(
    ("starts", "columns"),
    [
        ([], []),
        ([0], []),
        ([0, 2, 1, 4], [0, 1, 2, 3]),
        ([0, -1, 2, 4], [0, 1, 2, 3]),
        ([1, 2, 3, 4], [0, 1, 2, 3]),
        ([0, 2, 3, 5], [0, 1, 2, 3]),
        ([0, 2**31 - 1, -(2**31), 4], [0, 1, 2, 3]),
        ([0, 1, 3, 4], [0, 1, 2, M]),
        ([0, 1, 3, 4], [0, -1, 2, 3]),
        ([0, 1, 3, 4], [0, 2**31 - 1, -(2**31), 3]),
    ],
    ids=str,
)
def test_what_is_no_pattern(compiled, starts, columns):
    pattern = [np.array(starts, dtype=np.int32), np.array(columns, dtype=np.int32)]
    values, n, m = np.ones(len(columns)), np.ones(N), np.ones(M)
    with pytest.raises(ValueError, match=r"pattern|shape"):
        compiled.narrow(*pattern, values, n, m, 1.0, 1)
    with pytest.raises(ValueError, match=r"pattern|shape"):
        compiled.fill(*pattern, values, n, m, n, 1.0, values.copy(), n.copy(), m.copy(), 1)
    with pytest.raises(ValueError, match=r"pattern|shape|at least one"):
        compiled.Plans.sparse(values, *pattern, M)
    with pytest.raises(ValueError, match=r"pattern|shape|at least one"):
        compiled.Plans.sparse(values, *pattern, -1)


@pytest.mark.parametrize(
    ("factors", "left"),
    [
        ([], (1, 1)),
        ([(2, 2)] * 7, (1, 128)),
        ([()], (1, 0)),
        ([(0, 0)], (1, 0)),
        ([(2, 2)], (0, 2)),
        ([(2, 2)], (1, 3)),
        ([(3, 2)], (1, 2)),
        ([(2,)], (1, 2)),
        ([(0, 2)], (1, 2)),
        ([(2, 2), (0, 3)], (1, 6)),
        ([(2, 2)], (2,)),
        ([(4097, 1), (1, 4097)], (1, 4097)),
    ],
    ids=str,
)
@pytest.mark.parametrize("separable", [True, False])
def test_what_is_no_grid(compiled, factors, left, separable):
    with pytest.raises(ValueError, match=r"shape|grid|left|at least one"):
        compiled.Plans.grid([np.ones(f) for f in factors], np.ones(left), np.ones(left) if separable else None)
