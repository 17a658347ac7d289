"""Which modes a student keeps under each f-divergence, exact scores and ratios given, in the plane.

    python benchmarks/f_modes.py [--seeds N] [--again]

A student is an equal mixture of K Gaussians, G(z) = m_k + L_k z, trained by Adam on the theorem's gradient: batches of
256, noise of standard deviation 0.2, 0.5 or 1 (variance exploding) on each sample, its exact score against the
teacher's, weighted by h of the exact ratio. All divergences start from the same student and draw the same numbers.

problem  teacher                                                    student            start
pair     modes at (-a, 0) with 0.6 and (a, 0) with 0.4              one Gaussian       near the middle, width 1
four     equal modes at (+-2.5, +-2.5)                              four Gaussians     all near the first mode
(modes have variance 1/4)

figure      meaning
width       standard deviation of the student along the line that joins the pair
minimiser   a local minimum of the mean over the three noises of D_f(p_t || q_t): by quadrature and L-BFGS-B, from four
            starts, with none of the code that trains
gap         length of the difference from the nearest minimiser, in means and in standard deviations along the axes
global      whether that one is the least of the four
held        how many of the four modes have at least half their share of the student's mass within 3 standard deviations
stray       mass that is within 3 standard deviations of none

Source: Xu et al. 2025 (f-distill, arXiv 2502.15681), theorem 1 and Table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from f_mixtures import SMOOTH, Grid, log_normal_mixture
from lib import RESULTS, Row, bootstrap, conditions, parsed, read, result_of, say, where, write_json
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from pushforward.diffusion import GaussianMixture, VarianceExploding
from pushforward.diffusion.losses import score_difference_loss
from pushforward.divergences import FDivergence

PROCESS = VarianceExploding()
NOISES = (0.2, 0.5, 1.0)
STEPS, BATCH, RATE, SEEDS = 400, 256, 0.05, 6
TRAINED_AT = (1.0, 1.5, 2.0, 3.0)  # a of the pair
DRAWN_AT = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
CORNERS = [[2.5, 2.5], [-2.5, 2.5], [-2.5, -2.5], [2.5, -2.5]]
# Table 1 of the paper, with Hellinger's factor of its f = 1 - sqrt(r).
PAPER: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": torch.ones_like,
    "softened_reverse_kl": lambda r: 1 / (r + 1),
    "js": lambda r: r / (r + 1),
    "squared_hellinger": lambda r: r.sqrt() / 4,
    "jeffreys": lambda r: r + 1,
    "kl": lambda r: r,
}


class Student(nn.Module):
    """An equal mixture of Gaussians as a generator, whose law is known at every noise.

    Args:
        means: m_k, (K, 2).
        factors: L_k, (K, 2, 2).
    """

    def __init__(self, means: Tensor, factors: Tensor) -> None:
        super().__init__()
        self.means, self.factors = nn.Parameter(means.clone()), nn.Parameter(factors.clone())

    def forward(self, z: Tensor) -> Tensor:
        """G(z), (B, 2); sample i is of component i mod K."""
        k = torch.arange(len(z)) % len(self.means)
        return self.means[k] + torch.einsum("bde,be->bd", self.factors[k], z)

    def law(self) -> GaussianMixture:
        covariances = (self.factors @ self.factors.mT).detach()
        return GaussianMixture(
            weights=[1.0] * len(self.means), means=self.means.detach(), covariances=covariances, process=PROCESS
        )


def pair(a: float) -> GaussianMixture:
    return GaussianMixture(weights=[0.6, 0.4], means=[[-a, 0.0], [a, 0.0]], covariances=[0.25, 0.25], process=PROCESS)


def four() -> GaussianMixture:
    return GaussianMixture(weights=[1.0] * 4, means=CORNERS, covariances=[0.25] * 4, process=PROCESS)


def start(problem: str, seed: int) -> Student:
    """The student of this seed before its first step."""
    generator = torch.Generator().manual_seed(1000 + seed)
    one = torch.eye(2, dtype=torch.float64)
    if problem == "pair":
        return Student(0.5 * torch.randn(1, 2, generator=generator, dtype=torch.float64), one[None])
    around = 0.6 * torch.tensor(CORNERS[0], dtype=torch.float64)
    means = around + 0.5 * torch.randn(4, 2, generator=generator, dtype=torch.float64)
    return Student(means, 0.5 * one.expand(4, 2, 2))


def trained(teacher: GaussianMixture, student: Student, divergence: FDivergence, *, seed: int) -> Student:
    """The student after STEPS steps; the rate falls linearly from half of the way."""
    generator = torch.Generator().manual_seed(seed)
    noises = torch.tensor(NOISES, dtype=torch.float64)
    optimiser = torch.optim.Adam(student.parameters(), lr=RATE, betas=(0.5, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, 2 * (1 - step / STEPS)))
    for _ in range(STEPS):
        z, eps = torch.randn(2, BATCH, 2, generator=generator, dtype=torch.float64)
        t = noises[torch.randint(len(noises), (BATCH,), generator=generator)]
        x0, law = student(z), student.law()
        x_t = PROCESS.add_noise(x0.detach(), t, eps)
        h = divergence.weight(teacher.log_density(x_t, t) - law.log_density(x_t, t))
        optimiser.zero_grad()
        score_difference_loss(x0, teacher.score(x_t, t), law.score(x_t, t), h).mean().backward()
        optimiser.step()
        schedule.step()
    return student


def objective(divergence: FDivergence, a: float) -> Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]:
    """Mean D_f of the pair over the noises, by quadrature, and its slope, in (m, log L_11, L_21, log L_22)."""
    grid = Grid(low=(-3.0 - 2.5 * a, -6.0), high=(3.0 + 2.5 * a, 6.0), cells=100)
    x, one = grid.points(), torch.eye(2, dtype=torch.float64)
    weights, means = (torch.tensor(v, dtype=torch.float64) for v in ([0.6, 0.4], [[-a, 0.0], [a, 0.0]]))
    log_p = [log_normal_mixture(x, weights, means, (0.25 + t**2) * one.expand(2, 2, 2)) for t in NOISES]

    def value_and_slope(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        parameters = torch.tensor(theta, requires_grad=True)
        mean, covariance = _gaussian(parameters)
        total = torch.zeros((), dtype=torch.float64)
        for t, log_p_t in zip(NOISES, log_p, strict=True):
            log_q_t = log_normal_mixture(x, torch.ones(1, dtype=torch.float64), mean, covariance + t**2 * one)
            total = total + divergence.integrand(log_p_t, log_q_t).sum() * grid.cell / len(NOISES)
        (slope,) = torch.autograd.grad(total, parameters)
        return float(total.detach()), slope.numpy()

    return value_and_slope


def _gaussian(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (1, 2) and covariance (1, 2, 2)."""
    first, below, second = theta[2].exp(), theta[3], theta[4].exp()
    factor = torch.stack([torch.stack([first, torch.zeros_like(first)]), torch.stack([below, second])])
    return theta[None, :2], (factor @ factor.T)[None]


def minimisers(divergence: FDivergence, a: float) -> list[dict[str, Any]]:
    """Where L-BFGS-B comes to from the pair's own moments, either mode, and a middling start; the least first."""
    function = objective(divergence, a)
    across = 0.5 * np.log(0.25)
    own = [-0.2 * a, 0.0, 0.5 * np.log(0.25 + 0.96 * a**2), 0.0, across]
    starts = [own, [-a, 0.0, across, 0.0, across], [a, 0.0, across, 0.0, across], [0.0, 0.0, 0.0, 0.0, 0.0]]
    # A line search must not throw the student off the grid, where the quadrature sees nothing of it.
    widths = (np.log(0.2), np.log(1 + 1.3 * a))
    bounds = [(-a - 0.5, a + 0.5), (-1.0, 1.0), widths, (-1.0, 1.0), widths]
    exact, found = {"ftol": 1e-13, "gtol": 1e-8}, []
    for theta in starts:
        end = minimize(function, theta, jac=True, method="L-BFGS-B", bounds=bounds, options=exact)
        mean, covariance = _gaussian(torch.tensor(end.x))
        found.append({"value": float(end.fun), **_described(mean[0], covariance[0])})
    return sorted(found, key=lambda each: each["value"])


def _described(mean: Tensor, covariance: Tensor) -> dict[str, list[float]]:
    return {"mean": mean.tolist(), "width": covariance.diagonal().sqrt().tolist()}


def pair_run(name: str, a: float, seed: int, known: list[dict[str, Any]]) -> dict[str, Any]:
    """One training on the pair, and where it stands among the minimisers."""
    student = trained(pair(a), start("pair", seed), SMOOTH[name], seed=seed)
    law = student.law()
    ended = _described(student.means.detach()[0], law.covariances[0])

    def gap(other: dict[str, Any]) -> float:
        return float(np.hypot(*(np.linalg.norm(np.subtract(ended[key], other[key])) for key in ("mean", "width"))))

    nearest = min(known, key=gap)
    is_least = nearest["value"] < known[0]["value"] + 1e-6
    key = {"problem": "pair", "a": a, "divergence": name, "seed": seed}
    return key | ended | {"gap": gap(nearest), "global": is_least}


def four_run(name: str, seed: int) -> dict[str, Any]:
    """One training on the four modes, and what it holds."""
    student = trained(four(), start("four", seed), SMOOTH[name], seed=seed)
    with torch.no_grad():
        points = student(torch.randn(2**16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    shares = shares_of(points)
    ended = {"means": student.means.tolist(), "covariances": student.law().covariances.tolist()}
    held = sum(share >= 0.5 / len(shares) for share in shares)
    found = {"shares": shares, "held": held, "stray": 1 - sum(shares)}
    return {"problem": "four", "divergence": name, "seed": seed, **found, **ended}


def shares_of(points: Tensor) -> list[float]:
    """What of the points is within 3 standard deviations of each of the four modes."""
    near = torch.cdist(points, torch.tensor(CORNERS, dtype=points.dtype)) < 1.5
    return near.double().mean(0).tolist()


def weight_gap(name: str) -> float:
    """Largest difference of h as derived from f from the paper's Table 1, over max(1, h), for log r from -12 to 12."""
    s = torch.linspace(-12, 12, 2001, dtype=torch.float64)
    paper = PAPER[name](s.exp())
    return float(((SMOOTH[name].weight(s) - paper).abs() / paper.clamp_min(1.0)).max())


def references() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Every divergence's minimisers on the pair, by half distance, the least first. Runs in its own process."""
    return {name: {str(a): minimisers(divergence, a) for a in DRAWN_AT} for name, divergence in SMOOTH.items()}


def rows_of(seed: int, known: dict[str, dict[str, list[Row]]]) -> list[Row]:
    """Every divergence on every problem from one seed. Runs in its own process."""
    rows = [pair_run(name, a, seed, known[name][str(a)]) for a in TRAINED_AT for name in SMOOTH]
    return rows + [four_run(name, seed) for name in SMOOTH]


def summary(rows: list[Row], name: str) -> Row:
    """What the tables say of a divergence: means with intervals, over seeds."""
    own = where(rows, divergence=name)
    base = {row["seed"]: row["held"] for row in where(rows, problem="four", divergence="reverse_kl")}
    on_four = where(own, problem="four")
    found: dict[str, Any] = {
        "held": bootstrap([row["held"] for row in on_four]),
        "more_than_reverse_kl": bootstrap([row["held"] - base[row["seed"]] for row in on_four]),
        "stray": bootstrap([row["stray"] for row in on_four]),
        "pair": {},
    }
    for a in TRAINED_AT:
        at = where(own, a=a)
        found["pair"][str(a)] = {
            "width": bootstrap([row["width"][0] for row in at]),
            "gap": bootstrap([row["gap"] for row in at]),
            "global": sum(row["global"] for row in at),
            "runs": len(at),
        }
    return found


def main() -> None:
    asked = parsed(__doc__, {"seeds": SEEDS, "again": False, "out": RESULTS / "f_modes.json"})
    done = {} if asked.again else read(asked.out)
    known = done.get("minimisers") or result_of(references, wall_limit=1800.0)[0]
    rows, seconds = done.get("rows", []), done.get("seconds", 0.0)
    for seed in sorted(set(range(asked.seeds)) - {row["seed"] for row in rows}):
        new, taken = result_of(rows_of, seed, known, wall_limit=3600.0)
        rows, seconds = rows + new, seconds + taken
        setting = {"steps": STEPS, "batch": BATCH, "rate": RATE, "noises": NOISES}
        found = {
            "weights": {name: weight_gap(name) for name in SMOOTH},
            "minimisers": known,
            "summary": {name: summary(rows, name) for name in SMOOTH},
            "rows": rows,
            "seconds": seconds,
        }
        write_json(asked.out, conditions() | {"setting": setting} | found)
        say(f"seed {seed}: {taken:.0f} CPU seconds")


if __name__ == "__main__":
    main()
