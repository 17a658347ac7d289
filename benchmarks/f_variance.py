"""How noisy each f-divergence's gradient is, exact scores and ratios given: the variance figure of f-distill, in 2-D.

    python benchmarks/f_variance.py [--draws N]

Teacher: two equal modes at (-2, 0) and (2, 0), variance 1/4. The student is the same mixture but for one thing, the
scenario. Variance-exploding noise of standard deviation t is added to both.

scenario  what of the student differs, and how                                      t
shift     the second mode lies that far off, across the line that joins the two     0.5
share     what the second mode holds of the student's mass, instead of 1/2          0.5
width     its modes are that many times as wide                                     0.5
noise     0.5 off, a quarter in that mode, 0.8 times as wide; t is varied

symbol      meaning                                                                 shape
d           score difference grad log p - grad log q at x_t ~ q                     (2,)
h           weight of the divergence there                                          ()
g = h d     the gradient that a sample brings                                       (2,)

figure      meaning
weight      Var_q(h) / E_q(h)^2, the paper's
gradient    tr Cov_q(h d) / tr Cov_q(d): raw, over reverse KL's, whose h is 1
normalised  the same of batch means of 256 with both normalisations of f-distill: r divided by its mean over the
            batch (in the limit E_q[r] is 1), then h by its own

The first two are computed by quadrature, too. Each draw is 256 independent batches; intervals are bootstrapped over
draws, and two divergences are compared draw by draw, by the logarithm of the ratio of their figures.

Source: Xu et al. 2025 (f-distill, arXiv 2502.15681).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from f_mixtures import CLAIMED, SMOOTH, Grid, log_normal_mixture
from lib import RESULTS, Row, bootstrap, conditions, parsed, result_of, say, write_json
from torch import Tensor

from pushforward.diffusion import GaussianMixture, VarianceExploding

DRAWS, BATCHES, BATCH = 8, 256, 256
FIGURES = ("weight", "gradient", "normalised")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A teacher's and a student's mixture, which differ by the fields, at noise t.

    Args:
        shift: How far the student's second mode is off, across the line of the teacher's.
        share: What that mode holds of the student's mass.
        width: Standard deviation of its modes over the teacher's.
        t: Noise.
    """

    shift: float = 0.0
    share: float = 0.5
    width: float = 1.0
    t: float = 0.5

    def laws(self) -> tuple[GaussianMixture, GaussianMixture]:
        """Teacher, student."""
        teacher = {"weights": [0.5, 0.5], "means": [[-2.0, 0.0], [2.0, 0.0]], "covariances": [0.25, 0.25]}
        student = {
            "weights": [1 - self.share, self.share],
            "means": [[-2.0, 0.0], [2.0, self.shift]],
            "covariances": [0.25 * self.width**2] * 2,
        }
        process = VarianceExploding()
        return GaussianMixture(**teacher, process=process), GaussianMixture(**student, process=process)


SCENARIOS: dict[str, tuple[Callable[[float], Pair], tuple[float, ...]]] = {
    "shift": (lambda value: Pair(shift=value), (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)),
    "share": (lambda value: Pair(share=value), (0.45, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)),
    "width": (lambda value: Pair(width=value), (0.5, 0.65, 0.8, 0.95, 1.1, 1.3, 1.6)),
    "noise": (lambda value: Pair(shift=0.5, share=0.25, width=0.8, t=value), (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)),
}


def at_samples(pair: Pair, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Log-ratios (n,) and score differences (n, 2) at samples of the noised student."""
    teacher, student = pair.laws()
    t = torch.tensor(pair.t, dtype=torch.float64)
    x0 = student.sample(n, generator)
    x_t = x0 + t * torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    log_r = teacher.log_density(x_t, t) - student.log_density(x_t, t)
    return log_r, teacher.score(x_t, t) - student.score(x_t, t)


def figures(log_r: Tensor, d: Tensor) -> dict[str, dict[str, float]]:
    """Every divergence's figures from one draw, (batches * BATCH,) samples; "normalised" wants several batches."""
    plain, found = float(_spread(d)), {}
    batched = log_r.reshape(-1, BATCH)
    # E_q[r] over the batch, in logarithms since r may overflow.
    unit = batched - (batched.logsumexp(1, keepdim=True) - torch.tensor(float(BATCH)).log())
    d_batched = d.reshape(-1, BATCH, 2)
    baseline = float(_spread(d_batched.mean(1)))
    for name, divergence in SMOOTH.items():
        h = divergence.weight(log_r)
        h_unit = divergence.weight(unit)
        g = (h_unit / h_unit.mean(1, keepdim=True))[..., None] * d_batched
        found[name] = {
            "weight": float(h.var() / h.mean().square()),
            "gradient": float(_spread(h[:, None] * d)) / plain,
            "normalised": float(_spread(g.mean(1))) / baseline,
        }
    return found


def _spread(vectors: Tensor) -> Tensor:
    """Trace of the covariance of the rows."""
    return vectors.var(0).sum()


def by_quadrature(pair: Pair) -> dict[str, dict[str, float]]:
    """The first two figures, from the densities on a grid."""
    teacher, student = pair.laws()
    # Where the student is narrower, q r^2 = p^2 / q reaches farther than p and q do.
    reach = 7.0 + 4.0 * pair.t
    grid = Grid(low=(-2.0 - reach, -reach), high=(2.0 + reach, reach + pair.shift), cells=320)
    x = grid.points().requires_grad_()
    log_p, log_q = (_on_the_grid(law, x, pair.t) for law in (teacher, student))
    (d,) = torch.autograd.grad((log_p - log_q).sum(), x)
    mass, log_r = log_q.exp().detach() * grid.cell, (log_p - log_q).detach()

    def moments(h: Tensor) -> tuple[Tensor, Tensor]:
        mean, g = mass @ h, h[:, None] * d
        return (mass @ h.square()) / mean.square() - 1, mass @ g.square().sum(1) - (mass @ g).square().sum()

    plain = moments(torch.ones_like(mass))[1]
    found = {}
    for name, divergence in SMOOTH.items():
        weight, gradient = moments(divergence.weight(log_r))
        found[name] = {"weight": float(weight.clamp_min(0)), "gradient": float(gradient / plain)}
    return found


def _on_the_grid(law: GaussianMixture, x: Tensor, t: float) -> Tensor:
    weights, means, variances = (
        torch.tensor(values, dtype=torch.float64) for values in (law.weights, law.means, law.covariances)
    )
    covariances = (variances + t**2)[:, None, None] * torch.eye(2, dtype=torch.float64)
    return log_normal_mixture(x, weights, means, covariances)


def compared(draws: list[dict[str, dict[str, float]]]) -> dict[str, list[str]]:
    """For each figure, whether each neighbour in the claimed order is noisier: "yes", "no", or "open" (interval)."""
    verdicts: dict[str, list[str]] = {}
    for figure in FIGURES:
        said = []
        for steady, noisy in zip(CLAIMED, CLAIMED[1:], strict=False):
            ratio = torch.tensor([draw[noisy][figure] / draw[steady][figure] for draw in draws]).log()
            found = bootstrap(ratio)
            said.append("yes" if found["low"] > 0 else "no" if found["high"] < 0 else "open")
        verdicts[figure] = said
    return verdicts


def point(scenario: str, value: float, draws: int) -> Row:
    """A row: one scenario's student at one value."""
    pair = SCENARIOS[scenario][0](value)
    drawn = []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        drawn.append(figures(*at_samples(pair, BATCHES * BATCH, generator)))
    exact = by_quadrature(pair)
    rows = {
        name: {figure: bootstrap([draw[name][figure] for draw in drawn]) for figure in FIGURES} | {"exact": exact[name]}
        for name in SMOOTH
    }
    return {"scenario": scenario, "value": value, "divergences": rows, "in_order": compared(drawn)}


def every_point(draws: int) -> list[Row]:
    """All rows. Runs in its own process."""
    return [point(name, value, draws) for name, (_, values) in SCENARIOS.items() for value in values]


def main() -> None:
    asked = parsed(__doc__, {"draws": DRAWS, "out": RESULTS / "f_variance.json"})
    rows, seconds = result_of(every_point, asked.draws, wall_limit=1800.0)
    setting = {"draws": asked.draws, "batches": BATCHES, "batch": BATCH, "claimed": CLAIMED}
    write_json(asked.out, conditions() | {"setting": setting, "rows": rows, "seconds": seconds})
    say(f"{seconds:.0f} CPU seconds")


if __name__ == "__main__":
    main()
