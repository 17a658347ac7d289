"""Draw the README's picture in a light and a dark variant, from solutions computed here.

Run as `python docs/hero.py`; it writes `docs/pictures/`.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import pushforward as pf
from pushforward import plots, report
from pushforward.report.transport import curve
from pushforward.samples import digit_pair

a, b = digit_pair(3, 8)
pixels = np.stack(np.divmod(np.arange(64), 8), axis=1) / 8
cost = pf.PointCost(pixels, pixels, "sqeuclidean")
methods = ("sinkhorn", "sns", "newton")
solutions = {name: pf.solve(cost, a.ravel(), b.ravel(), epsilon=1 / 1200, method=name) for name in methods}
plan = solutions["newton"].plan
curves = {method: curve(found) for method, found in solutions.items()}


def paint(figure: Figure) -> None:
    """A 3 becomes an 8; below, the plan that does it, and how fast each method finds it."""
    axes = figure.subplot_mosaic([["way", "way"], ["plan", "curves"]], height_ratios=[1, 2.4], width_ratios=[1, 1.5])
    plots.frames(axes["way"], plan.to_sparse(1e-9), (8, 8))
    plots.plan_picture(axes["plan"], plan.to_dense())
    plots.convergence(axes["curves"], curves, tol=1e-9)


report.draw(Path(__file__).parent, "hero", paint, size=(8.0, 4.6), alt="")
