"""How noisy each f-divergence's gradient is, exact scores and ratios given: the variance figure of f-distill, in 2-D.

    python benchmarks/f_variance.py [--draws N] [--pictures]

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
draws, and two divergences are compared draw by draw, by the logarithm of the ratio of their figures. `--pictures` runs
nothing: it draws the pictures of docs/f-divergences.md from results/f_variance.json.

Source: Xu et al. 2025 (f-distill, arXiv 2502.15681).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from f_mixtures import CLAIMED, LOOKS, SMOOTH, Grid, bootstrap, legend, log_normal_mixture
from measure import conditions, in_own_process, say, write_json
from torch import Tensor

from pushforward.diffusion import GaussianMixture, VarianceExploding

RESULTS = Path(__file__).with_name("results") / "f_variance.json"
DOCS = Path(__file__).parents[1] / "docs"
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


def point(scenario: str, value: float, draws: int) -> dict[str, Any]:
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


def every_point(draws: int) -> dict[str, Any]:
    """All rows. Runs in its own process."""
    torch.set_num_threads(1)
    began = time.process_time()
    rows = [point(name, value, draws) for name, (_, values) in SCENARIOS.items() for value in values]
    return {"rows": rows, "seconds": time.process_time() - began}


def draw_pictures(rows: list[dict[str, Any]], folder: Path) -> None:
    """The weight's variance above, the normalised gradient's below, a column a scenario."""
    from pushforward import report

    axes = {"shift": "how far a mode is off", "share": "mass in the second mode", "width": "width of the modes"}
    said = {"weight": "Var h / (E h)²", "normalised": "gradient variance\nover reverse KL's"}

    def paint(figure: Any) -> None:
        panels = figure.subplots(2, 3, sharex="col", squeeze=False)
        for line, (kind, label) in zip(panels, said.items(), strict=True):
            line[0].set_ylabel(label)
            for ax, scenario in zip(line, axes, strict=True):
                own = [row for row in rows if row["scenario"] == scenario]
                _curves(ax, own, kind)
        for ax, (scenario, label) in zip(panels[1], axes.items(), strict=True):
            ax.set_xlabel(label)
            if scenario == "share":
                ax.set_xscale("log")
                ax.invert_xaxis()
                ax.set_xticks([0.5, 0.2, 0.1, 0.05, 0.02], ["0.5", "0.2", "0.1", "0.05", "0.02"])
                ax.minorticks_off()
        legend(figure, panels[1, 0])

    report.draw(folder, "f-variance", paint, size=(9.0, 5.6), alt="")


def _curves(ax: Any, rows: list[dict[str, Any]], kind: str) -> None:
    values = [row["value"] for row in rows]
    for name in CLAIMED:
        label, colour, dashes = LOOKS[name]
        found = [row["divergences"][name][kind] for row in rows]
        exact = [row["divergences"][name]["exact"].get(kind) for row in rows]
        line = exact if None not in exact else [each["mean"] for each in found]
        ax.plot(values, line, color=colour, linestyle=dashes, label=label)
        low, high = ([each[side] for each in found] for side in ("low", "high"))
        ax.vlines(values, low, high, color=colour, linewidth=3, alpha=0.6)
    if kind == "normalised":
        label, colour, dashes = LOOKS["reverse_kl"]
        ax.axhline(1.0, color=colour, linestyle=dashes, linewidth=1, label=label)
    ax.set_yscale("log")
    if kind == "normalised":
        low, high = ax.get_ylim()
        ticks = [tick for tick in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if low <= tick <= high]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    ax.grid(axis="y")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--pictures", action="store_true", help="draw what is there, run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.pictures:
        answer = in_own_process(every_point, arguments.draws, wall_limit=1800.0)
        if "rows" not in answer:
            raise SystemExit(answer["status"])
        stamp = {name: value for name, value in conditions().items() if name != "tolerance"}
        setting = {"draws": arguments.draws, "batches": BATCHES, "batch": BATCH, "claimed": CLAIMED}
        write_json(arguments.out, stamp | {"setting": setting} | answer)
        say(f"{answer['seconds']:.0f} CPU seconds")
    draw_pictures(json.loads(arguments.out.read_text())["rows"], DOCS)


if __name__ == "__main__":
    main()
