"""Costs other than the squared Euclidean one: maps learned for them, beside maps that are known to be optimal.

    python benchmarks/map_costs.py [--problems NAME ...] [--methods NAME ...] [--seeds N ...] [--again] [--pages]

problem   cost       truth                                                            points, dimension
radial    Euclidean  outwards, as far as the radius says (`truths.Radial`)            standard normal, 2
petals    Euclidean  outwards, as far as radius and direction say (`Petals`)          standard normal, 2
sphere    geodesic   along meridians (`truths.Meridians`), kappa 20 to 5              von Mises-Fisher, 3
elastic   elastic    along the axes that are worth it (`truths.LogSumExp`), gamma 1   standard normal, 4

Every method runs in a process of its own, on one core and one thread; its row goes into
results/map_costs.json at once, and those that are there are not run again but with `--again`. `--pages` runs nothing:
it writes the tables of docs/map-costs.md and draws its pictures from that file.

Figures of a map, on 4096 points that were not fitted on:

excess             what it pays over what the truth pays, less 1, in percent: a map that falls short of the target pays
                   less than the truth, so that only both together say something
w2, w2_floor       exact W2^2 from the image to the target, and between two samples of the target (1024 points)
exact_gap          what it pays over the cheapest rearrangement of its image, in percent of what the truth pays
l2_uvp             squared distance from the truth in percent of the target's variance. For the Euclidean and geodesic
                   costs optimal maps are many, and another one than the truth is no fault
still_recall       of the coordinates that the truth leaves where they are, the share that the map does, to the bit
still_precision    of those that the map leaves, the share that the truth does
off_sphere         mean distance of the images from the sphere
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maps_tables import estimate, markdown
from measure import conditions, in_own_process, say, write_json
from torch import Tensor

from pushforward import metrics
from pushforward.maps import MongeMap
from pushforward.maps.costs import ElasticL1, Geodesic, resolve
from pushforward.maps.truths import KnownMap, LogSumExp, Meridians, Radial

RESULTS = Path(__file__).with_name("results") / "map_costs.json"
PAGE = Path(__file__).parents[1] / "docs" / "map-costs.md"
SEEDS = (0, 1, 2, 3, 4)
JUDGED_ON, EXACT, DRAWN = 4096, 1024, 90
DRAWN_PROBLEMS = ("petals", "sphere", "elastic")
BUDGET = {"steps": 500, "batch_size": 256}

Row = dict[str, Any]
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Petals(KnownMap):
    """Standard normal points of the plane, each moved outwards along its ray, the farther the nearer to a petal.

    Optimal for the Euclidean cost since no point moves inwards, whatever else the displacement depends on: |x| is a
    potential. Not for the squared one, as the displacement is no gradient.

    Args:
        petals: Directions of the longest moves.
        reach: Length of the longest, far from the centre.
    """

    petals: int = 3
    reach: float = 3.0
    cost: str = field(default="euclidean", init=False)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal points, (n, 2)."""
        return torch.randn(n, 2, dtype=torch.float64, generator=generator)

    def map(self, x: Tensor) -> Tensor:
        """X (1 + move/|x|)."""
        radius = x.norm(dim=-1)
        towards = 0.5 + 0.5 * torch.cos(self.petals * torch.atan2(x[:, 1], x[:, 0]))
        return x * (1.0 + self.reach * towards * radius / (1.0 + radius.square()))[:, None]


def outwards(radius: Tensor) -> Tensor:
    """R of the radial problem: smooth at the centre, and far from it 2 farther out."""
    return radius + 2.0 * radius.square() / (1.0 + radius.square())


PROBLEMS: dict[str, KnownMap] = {
    "radial": Radial(dim=2, profile=outwards),
    "petals": Petals(),
    "sphere": Meridians(source_kappa=20.0, target_kappa=5.0),
    "elastic": LogSumExp(dim=4, cost=ElasticL1(gamma=1.0)),
}
# Points of each side. Of 4000 the mean radius alone, and with it what the least costly map pays, is only known to 2 %.
# The elastic cost's maps are distilled from plans, whose price grows with the square.
FITTED_ON = {"radial": 2**15, "petals": 2**15, "sphere": 2**15, "elastic": 2**13}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What maps are fitted and judged on: x and y, unpaired, then points that no map has seen."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    y_other: Tensor


def drawn(problem: str, seed: int) -> Sample:
    """The sample of this seed, in float32, in which maps are trained."""
    truth, random, fitted_on = PROBLEMS[problem], torch.Generator().manual_seed(seed), FITTED_ON[problem]
    sizes = {"x": fitted_on, "y": fitted_on, "x_test": JUDGED_ON, "y_test": EXACT, "y_other": EXACT}
    return Sample(**{
        name: (truth.sample if name.startswith("x") else truth.target)(size, random).float()
        for name, size in sizes.items()
    })  # fmt: skip


def identity(_truth: KnownMap, _sample: Sample, _seed: int) -> Transform:
    return lambda points: points


def mean_shift(_truth: KnownMap, sample: Sample, _seed: int) -> Transform:
    shift = sample.y.mean(0) - sample.x.mean(0)
    return lambda points: points + shift


def learned(**parameters: Any) -> Callable[[KnownMap, Sample, int], MongeMap]:
    """`MongeMap` for the problem's own cost, unless the parameters name another."""

    def fit(truth: KnownMap, sample: Sample, seed: int) -> MongeMap:
        settings = {"cost": truth.cost} | BUDGET | parameters
        return MongeMap(**settings, random_state=seed).fit(sample.x, sample.y)

    return fit


METHODS: dict[str, Callable[[KnownMap, Sample, int], Any]] = {
    "identity": identity,
    "mean shift": mean_shift,
    "monge": learned(),
    "debiased gap": learned(start="linear", estimator="debiased"),
    "fit alone": learned(start="linear", gap_weight=0.0),
    "squared cost": learned(cost="sqeuclidean", start="linear"),
}
NAMES = {
    "monge": "**`MongeMap(cost)`**",
    "debiased gap": "the same from the linear map, debiased gap",
    "fit alone": "the same from the linear map, no gap",
    "squared cost": "the same from the linear map, squared cost",
}


def row_of(problem: str, method: str, seed: int) -> Row:
    """One method on one sample. Runs in its own process."""
    torch.set_num_threads(1)
    truth, sample = PROBLEMS[problem], drawn(problem, seed)
    began = time.process_time()
    fitted = METHODS[method](truth, sample, seed)
    seconds = time.process_time() - began
    images = (fitted.transform if isinstance(fitted, MongeMap) else fitted)(sample.x_test)
    row: Row = {
        "problem": problem,
        "method": method,
        "seed": seed,
        "seconds": seconds,
        "figures": figures(truth, sample, images),
    }
    if isinstance(fitted, MongeMap):
        row["stage"], row["epsilon"] = fitted.stage_, fitted.epsilon_
    if seed == SEEDS[0]:
        row["moves"] = np.stack([sample.x_test[:DRAWN], images[:DRAWN]], 1).round(3).astype(float).tolist()
    return row


def figures(truth: KnownMap, sample: Sample, images: Tensor) -> dict[str, float]:
    """The figures of the module's table."""
    cost, x = resolve(truth.cost), sample.x_test.double()
    images, true = images.double(), truth.map(x)
    least = float(cost.paired(x, true).mean())
    report = metrics.judge_map(x, images, sample.y_test, cost=cost, true=true, other=sample.y_other, points=EXACT)
    found = {name: value for name, value in report.figures().items() if name != "cosine"}
    found["exact_gap"] *= 100.0 / least
    found["excess"] = 100.0 * (float(cost.paired(x, images).mean()) / least - 1.0)
    if isinstance(cost, Geodesic):
        found["off_sphere"] = float((images.norm(dim=1) - 1.0).abs().mean())
    return found | (stillness(x, images, true) if isinstance(cost, ElasticL1) else {})


def stillness(x: Tensor, images: Tensor, true: Tensor) -> dict[str, float]:
    """Recall and precision of the coordinates that do not move; a map that moves all of them has no precision."""
    still, should = images == x, true == x
    both = float((still & should).sum())
    recall = {"still_recall": both / float(should.sum())}
    return recall | ({"still_precision": both / float(still.sum())} if bool(still.any()) else {})


def read(path: Path) -> list[Row]:
    return json.loads(path.read_text())["rows"] if path.exists() else []


def key_of(row: Row) -> tuple[str, str, int]:
    return row["problem"], row["method"], row["seed"]


def run(keys: list[tuple[str, str, int]], *, again: bool, out: Path) -> None:
    order = [(problem, method, seed) for problem in PROBLEMS for seed in SEEDS for method in METHODS]
    for problem, method, seed in keys:
        known = [row for row in read(out) if key_of(row) != (problem, method, seed)]
        if len(known) < len(read(out)) and not again:
            continue
        row = in_own_process(row_of, problem, method, seed, wall_limit=3600.0)
        if "figures" not in row:
            raise SystemExit(f"{problem}, {method}, seed {seed}: {row['status']}")
        setting = {"fitted_on": FITTED_ON, "judged_on": JUDGED_ON, "exact": EXACT, **BUDGET}
        stamp = {name: value for name, value in conditions().items() if name != "tolerance"}
        stamp["versions"]["scikit-learn"] = importlib.metadata.version("scikit-learn")
        rows = sorted([*known, row | {"commit": stamp["commit"]}], key=lambda row: order.index(key_of(row)))
        write_json(out, stamp | {"setting": setting, "rows": rows})
        said = {name: round(value, 3) for name, value in row["figures"].items()}
        say(f"{problem:8} {method:13} {seed} {row['seconds']:.1f} s {row.get('stage', '')} {said}")


COLUMNS = {
    "excess": "cost over the optimum's, %",
    "exact_gap": "exact gap, %",
    "w2": "W2²",
    "w2_floor": "floor",
    "l2_uvp": "L2-UVP %",
    "still_recall": "still: recall",
    "still_precision": "precision",
    "off_sphere": "off the sphere",
}


def table(rows: list[Row], problem: str) -> str:
    """One line a method that was run: means over seeds with 95 % intervals."""
    rows = [row for row in rows if row["problem"] == problem]
    columns = [name for name in COLUMNS if any(name in row["figures"] for row in rows)]
    body = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        if not own:
            continue
        found = [estimate(row["figures"][name] for row in own if name in row["figures"]) for name in columns]
        seconds = estimate(row["seconds"] for row in own)
        body.append([
            NAMES.get(method, method), *("" if each is None else str(each) for each in found),
            "" if seconds is None else f"{seconds.mean:.0f}",
        ])  # fmt: skip
    return markdown(["map", *(COLUMNS[name] for name in columns), "CPU s"], body)


def potential(truth: KnownMap, x: Tensor) -> Tensor:
    """A potential f of the source whose optimal map is the truth (`truths`)."""
    if isinstance(truth, LogSumExp):
        directions, offsets = truth._pieces  # pyright: ignore[reportPrivateUsage]
        return -truth.temperature * ((x @ directions.T + offsets) / truth.temperature).logsumexp(-1)
    return -(x[:, 2].clamp(-1.0, 1.0).acos() if isinstance(truth, Meridians) else x.norm(dim=1))


def of_the_sample(problem: str, seed: int) -> float:
    """What the optimum between the two samples pays over the truth's cost, in percent, to first order.

    An optimum's derivatives are its potentials: moving the target's sample pays the mean of g there less that over the
    images of the source's sample, g(T x) = c(x, T x) - f(x).
    """
    truth, random = PROBLEMS[problem], torch.Generator().manual_seed(seed)
    x, before_y = (truth.sample(FITTED_ON[problem], random) for _ in range(2))
    paid = [resolve(truth.cost).paired(points, truth.map(points)) for points in (x, before_y)]
    g_x, g_y = (cost - potential(truth, points) for cost, points in zip(paid, (x, before_y), strict=True))
    return 100.0 * float((g_y.mean() - g_x.mean()) / torch.cat(paid).mean())


def verdicts(rows: list[Row]) -> str:
    """Whether what `MongeMap` pays is within 1 % of the optimum, and how far its image is from the floor."""
    body = []
    for problem in PROBLEMS:
        seeds = [row["seed"] for row in rows if (row["problem"], row["method"]) == (problem, "monge")]
        own = [row["figures"] for row in rows if (row["problem"], row["method"]) == (problem, "monge")]
        if own:
            excess, above = estimate(f["excess"] for f in own), estimate(f["w2"] - f["w2_floor"] for f in own)
            sampled = [of_the_sample(problem, seed) for seed in seeds]
            beyond = estimate(f["excess"] - least for f, least in zip(own, sampled, strict=True))
            far = abs(excess.mean) - 1.0
            said = "reached" if far <= 0 else f"missed by {far:.2f}"
            body.append([problem, str(excess), said, str(estimate(sampled)), str(beyond), str(above)])
    columns = ["cost over the optimum's, %", "within 1 %", "the sample's own", "beyond it", "W2² over the floor"]
    return markdown(["problem", *columns], body)


def draw(rows: list[Row], folder: Path) -> None:
    """Arrows of the truth, of the map learned, and of that for the squared cost, a picture a problem."""
    from pushforward import plots, report

    for problem in DRAWN_PROBLEMS:
        truth = PROBLEMS[problem]
        moves = {row["method"]: np.array(row["moves"]) for row in rows if row["problem"] == problem and "moves" in row}
        x = moves["monge"][:, 0]
        panels = {
            "the truth": truth.map(torch.tensor(x)).numpy(),
            "learned": moves["monge"][:, 1],
            "learned for the squared cost": moves["squared cost"][:, 1],
        }
        target = truth.target(400, torch.Generator().manual_seed(1)).numpy()

        def paint(figure: Any, x: Any = x, panels: Any = panels, target: Any = target) -> None:
            for ax, (name, images) in zip(figure.subplots(1, 3), panels.items(), strict=True):
                plots.moves(ax, x[:, :2], images[:, :2], target[:, :2], most=DRAWN)
                ax.set_xlabel(name)

        report.draw(folder, f"map-costs-{problem}", paint, size=(9.0, 3.4), alt="")


def write_pages() -> None:
    rows, page = read(RESULTS), PAGE.read_text()
    made = {"verdicts": verdicts(rows)} | {problem: table(rows, problem) for problem in PROBLEMS}
    for name, text in made.items():
        around = re.compile(rf"(<!-- map_costs:{name} -->\n).*?(<!-- /map_costs:{name} -->)", re.DOTALL)
        page = around.sub(lambda found, text=text: found[1] + text + found[2], page)
    PAGE.write_text(page)
    draw(rows, PAGE.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--again", action="store_true", help="run anew what is there")
    parser.add_argument("--pages", action="store_true", help="write tables and pictures of what is there, run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.pages:
        write_pages()
    else:
        keys = [(p, m, seed) for seed in arguments.seeds for p in arguments.problems for m in arguments.methods]
        run(keys, again=arguments.again, out=arguments.out)


if __name__ == "__main__":
    main()
