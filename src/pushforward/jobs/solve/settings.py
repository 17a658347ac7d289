"""`pushforward solve`: one transport problem from files."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pushforward.jobs.errors import NOT_CONVERGED, OK, InputError
from pushforward.jobs.folder import make_folder

if TYPE_CHECKING:
    from pushforward import GridCost, PointCost
    from pushforward.jobs.inputs.arrays import Array
    from pushforward.jobs.inputs.transport import Problem

__all__ = ["Solve"]

# Beyond it a picture's own mass is lost in rounding.
_MOST_BACKGROUND = 1e6


@dataclass(frozen=True, kw_only=True)
class Solve:
    """Solve optimal transport between two pictures, between two clouds of points, or for one cost matrix.

    Pictures of one size (.png, .jpg, ...): grey value is mass on the pixel grid. Points (.npy, .csv, .tsv, or .npz with
    `points` and perhaps `weights`; a .csv may have a column `weight`): one point a row, columns paired by their
    headings. One cost matrix (.npy, .csv, .tsv, or .npz with `cost` and perhaps `a` and `b`). Masses are normalised
    to 1.

    Exit code 0: converged. 1: not converged; the partial result is printed, and says so. 2: a wrong flag or file.
    """

    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    """Source picture (.png, .jpg, ...: grey value is mass), points (.npy, .csv, .npz with `points` and perhaps
    `weights`: one point a row), or the cost matrix (.npy, .csv, .npz with `cost` and perhaps `a` and `b`)."""
    b: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[B]", help_behavior_hint="")] = None
    """Target picture of the same size, or points."""
    epsilon: Annotated[
        float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 0.05 of the mean cost)")
    ] = None
    """Entropic regularisation, in units of the cost."""
    method: Literal["auto", "newton", "sns", "sinkhorn"] = "auto"
    """The solver; auto chooses, and falls back where the first choice fails."""
    tol: float = 1e-9
    """L1 error of both marginals together that counts as converged."""
    max_iterations: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the method's own limit)")
    ] = None
    """Most iterations."""
    exact: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Compute the exact, unregularised transport cost as well."""
    p: Annotated[Literal[1, 2] | None, tyro.conf.arg(metavar="{1,2}", help_behavior_hint="(default: 2)")] = None
    """Pictures: the cost of a pair of pixels is |i - j|^p, summed over the two axes."""
    scale: Annotated[
        float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 1 / (longer side)^p)")
    ] = None
    """Pictures: factor on that cost. By default distances count in picture sides."""
    background: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 0)")] = None
    """Pictures: mass added to every pixel, as a share of the largest grey value."""
    cost: Annotated[
        Literal["sqeuclidean", "euclidean", "manhattan", "cosine", "matrix"] | None,
        tyro.conf.arg(
            metavar="{sqeuclidean,euclidean,manhattan,cosine,matrix}", help_behavior_hint="(default: sqeuclidean)"
        ),
    ] = None
    """Points: the cost of a pair. One file: matrix, if it holds the cost of every pair but looks like points."""
    ink: Annotated[
        Literal["light", "dark"] | None, tyro.conf.arg(metavar="{light,dark}", help_behavior_hint="(default: light)")
    ] = None
    """Pictures: whether the light or the dark is mass. Without it, dark ink on light paper is refused."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """Folder for the potentials, the plan, the metrics, the recipe and a page that shows them."""
    json: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Print the result as JSON."""

    def run(self) -> int:
        """Solve, print, and write the run's folder if one is asked for."""
        self._check_flags()
        problem = self._read()
        if self.out is not None:
            make_folder(self.out)

        import pushforward as pf
        from pushforward.errors import PushforwardError

        cost, solve = self._cost(problem), pf.solve  # its first use loads torch, which is not the solver's time
        start = time.perf_counter()
        try:
            solution = solve(
                cost,
                problem.a,
                problem.b,
                epsilon=self.epsilon,
                method=self.method,
                tol=self.tol,
                max_iterations=self.max_iterations,
                throw=False,
            )
            seconds = time.perf_counter() - start
            exact = _exact(cost, problem) if self.exact else None
        except PushforwardError as error:
            raise InputError(f"{self.a}: {error}") from None

        result = _result(problem.title, solution, exact, seconds=seconds, tol=self.tol)
        print(json.dumps(result, indent=2, allow_nan=False) if self.json else _block(result))
        if self.out is not None:
            from pushforward.jobs.solve.page import write

            page = write(self.out, self, problem, cost, solution, result)
            if not self.json:
                print(f"page              {page}")
        reached = solution.converged and (exact is None or exact["cost"] is not None)
        return OK if reached else NOT_CONVERGED

    def _check_flags(self) -> None:
        for flag, value in (("--epsilon", self.epsilon), ("--tol", self.tol), ("--scale", self.scale)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{flag} {value}: must be a finite number above 0")
        if self.max_iterations is not None and self.max_iterations < 1:
            raise InputError(f"--max-iterations {self.max_iterations}: must be at least 1")
        if self.background is not None and not 0 <= self.background <= _MOST_BACKGROUND:
            raise InputError(f"--background {self.background}: must be at least 0, and {_MOST_BACKGROUND:g} at most")

    def _read(self) -> Problem:
        from pushforward.jobs.inputs.arrays import is_picture
        from pushforward.jobs.inputs.costs import read_cost
        from pushforward.jobs.inputs.pictures import read_pictures
        from pushforward.jobs.inputs.points import read_points

        pictures = is_picture(self.a)
        if self.b is not None and is_picture(self.b) != pictures:
            raise InputError(f"{self.b}: and {self.a} are not of one kind; give two pictures or two files of points")
        kind = "pictures" if pictures else "points" if self.b is not None else "cost"
        for flag, value, only in (
            ("--p", self.p, "pictures"),
            ("--scale", self.scale, "pictures"),
            ("--background", self.background, "pictures"),
            ("--ink", self.ink, "pictures"),
            ("--cost", self.cost, "cost" if self.cost == "matrix" else "points"),
        ):
            if value is not None and kind != only:
                raise InputError(f"{flag}: is for {only} only; {self.a} holds {kind}")
        if kind == "cost":
            return read_cost(self.a, sure=self.cost == "matrix")
        if self.b is None:
            raise InputError(f"{self.a}: is one picture; transport needs a second one of the same size")
        return (
            read_pictures(self.a, self.b, background=self.background or 0.0, ink=self.ink)
            if pictures
            else read_points(self.a, self.b)
        )

    def _cost(self, problem: Problem) -> GridCost | PointCost | Array:
        import pushforward as pf
        from pushforward.jobs.inputs.pictures import Pictures
        from pushforward.jobs.inputs.points import Points

        if isinstance(problem, Pictures):
            p = self.p or 2
            return pf.GridCost(problem.shape, p=p, scale=self.scale or 1.0 / max(problem.shape) ** p)
        if isinstance(problem, Points):
            pair = "sqeuclidean" if self.cost is None or self.cost == "matrix" else self.cost
            return pf.PointCost(problem.x, problem.y, pair)
        return problem.cost


def _exact(cost: Any, problem: Problem) -> dict[str, Any]:
    """The exact cost and its certified gap; without a cost, why there is none."""
    import pushforward as pf

    try:
        found = pf.exact(cost, problem.a, problem.b)
    except pf.errors.NotConverged as failure:
        return {"cost": None, "gap": None, "message": str(failure)}
    return {"cost": float(found.cost), "gap": float(found.gap), "message": found.status.message}


def _result(title: str, solution: Any, exact: dict[str, Any] | None, *, seconds: float, tol: float) -> dict[str, Any]:
    lower, upper = solution.bounds()
    counts = solution.iterations
    return {
        "problem": title,
        "status": solution.status.name,
        "message": solution.status.message,
        "method": solution.method,
        "epsilon": _number(solution.epsilon),
        "value": _number(solution.value),
        "transport_cost": _number(solution.transport_cost),
        "bounds": [_number(lower), _number(upper)],
        "marginal_error": _number(solution.marginal_error),
        "tol": tol,
        "duality_gap": _number(solution.duality_gap),
        "iterations": {
            name: int(getattr(counts, name)) for name in ("sinkhorn", "newton", "cg", "plan_evaluations", "products")
        },
        "seconds": seconds,
        "exact": exact,
    }


def _number(value: Any) -> float | None:
    """A float that JSON can hold; None for what is not finite."""
    return float(value) if math.isfinite(value) else None


def _block(result: dict[str, Any]) -> str:
    counts = result["iterations"]
    lower, upper = result["bounds"]
    rows = [
        ("problem", result["problem"]),
        ("status", result["status"]),
        ("", result["message"]),
        ("method", result["method"]),
        ("epsilon", _show(result["epsilon"])),
        ("value", f"{_show(result['value'])}   regularised optimum"),
        ("transport cost", f"{_show(result['transport_cost'])}   <P, C>"),
        ("bounds", f"{_show(lower)} to {_show(upper)}   certified, of the unregularised cost"),
        ("marginal error", f"{_show(result['marginal_error'], 3)}   asked for {result['tol']:.3g}"),
        (
            "iterations",
            f"{counts['sinkhorn']} Sinkhorn, {counts['newton']} Newton, {counts['cg']} CG; "
            f"{counts['plan_evaluations']} plan evaluations, {counts['products']} products",
        ),
        ("seconds", f"{result['seconds']:.3f}"),
    ]
    exact = result["exact"]
    if exact is not None and exact["cost"] is None:
        rows.append(("exact cost", f"not found: {exact['message']}"))
    elif exact is not None:
        rows.append(("exact cost", f"{_show(exact['cost'])}   certified to {abs(exact['gap']):.3g}"))
    if result["status"] != "CONVERGED":
        rows.insert(2, ("", "PARTIAL RESULT: what follows is not the solution that was asked for"))
    return "\n".join(f"{name:<18}{value}" for name, value in rows)


def _show(value: float | None, digits: int = 9) -> str:
    return "not finite" if value is None else f"{value:.{digits}g}"
