"""Floats as exact rational numbers: every finite one is a whole number over a power of two."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

__all__ = ["FINEST", "finest", "proved_gap", "ratio", "whole"]

# The exponent of the smallest float: all floats are whole multiples of 2^-FINEST.
FINEST = 1074


def whole(values: np.ndarray, shift: int = FINEST) -> list[int]:
    """The whole numbers v 2^shift of finite floats, without rounding; `shift` is at least `finest(values)`."""
    mantissa, exponent = np.frexp(values)
    digits = (mantissa * 2.0**53).astype(np.int64).tolist()
    shifts = (exponent.astype(np.int64) + (shift - 53)).tolist()
    return [d << s if s >= 0 else d >> -s for d, s in zip(digits, shifts, strict=True)]


def finest(values: np.ndarray) -> int:
    """A shift at which positive floats are whole numbers."""
    return int(min(FINEST, max(0, 53 - int(np.frexp(values)[1].min()))))


def ratio(p: int, q: int) -> float:
    """The float nearest to p / q, infinite beyond the largest."""
    try:
        return p / q
    except OverflowError:
        return np.inf if p > 0 else -np.inf


def proved_gap(cost: float, f: np.ndarray, g: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The least float gap, at least 0, with cost - gap <= the optimum, in exact arithmetic.

    The optimum is that of marginals a and b sum a / sum b, of which <f, a> + <g, b> sum a / sum b is a lower bound.
    Where the masses of a and b differ by what rounding explains, the bound is lowered by their difference times a
    price, so that it holds, too, where the difference is spread over a in place of b, or put on a single weight of
    which it is no more than a millionth of a millionth.

    Args:
        cost: The cost of a plan.
        f, g: Prices, (n,) and (m,), with f_i + g_j <= C_ij in exact arithmetic.
        a, b: Positive weights, (n,) and (m,).

    Returns:
        The gap, in units of the cost times mass.
    """
    shift_a, shift_b = finest(a), finest(b)
    some_a, some_b = whole(a, shift_a), whole(b, shift_b)
    mass_a, mass_b = sum(some_a), sum(some_b)
    paid_a = sum(x * y for x, y in zip(whole(f), some_a, strict=True))
    paid_b = sum(x * y for x, y in zip(whole(g), some_b, strict=True))
    dual = Fraction(paid_a * mass_b + paid_b * mass_a, (mass_b << shift_a) << FINEST)
    differ = abs(Fraction(mass_a, 1 << shift_a) - Fraction(mass_b, 1 << shift_b))
    rounding = Fraction(len(a) + len(b), 1 << 52) * Fraction(mass_a, 1 << shift_a)
    prices = [float(p @ w) / float(w.sum()) for p, w in ((np.abs(f), a), (np.abs(g), b))]
    for price, weights in ((np.abs(f), a), (np.abs(g), b)):
        prices.append(float(price[weights >= 1e12 * float(differ)].max(initial=0.0)))
    exact = Fraction(cost) - dual + min(differ, rounding) * Fraction(max(prices))
    if exact <= 0:
        return 0.0
    gap = ratio(exact.numerator, exact.denominator)
    return gap if Fraction(gap) >= exact else float(np.nextafter(gap, np.inf))
