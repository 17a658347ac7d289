"""Act three: maps that go on to points they have not seen, in the space of colours and in the plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from pushforward import samples
from pushforward.jobs.colours import recolour
from pushforward.jobs.fit_map.scores import Split, scores, simple_maps, split
from pushforward.jobs.tour.threads import one_thread
from pushforward.maps.entropic import EntropicMap
from pushforward.maps.monge import MongeMap
from pushforward.maps.truths import LogSumExp
from pushforward.report import Block, Code, Picture, Section, Text
from pushforward.report import maps as show
from pushforward.report.transport import Array

__all__ = ["maps"]

Transform = Callable[[Array], Array]

_HEIGHT, _PIXELS = 213, 2000
_POINTS, _HELD_OUT = 1200, 0.25
# A tour has seconds: the defaults train longer, on larger batches.
_COLOUR_STEPS, _PLANE_STEPS, _BATCH = 200, 150, 256

_QUESTION = f"""A plan says where the points go that it was computed from, and nothing of any other. A map answers for
every point. Here the points are colours: {_PIXELS} pixels of either photograph, each a point in the cube of red, green
and blue. A map is learned from the first one's colours to the second one's, and then paints the whole first
photograph anew. A cheapest map changes no colour more than it must, which is what keeps the picture a picture."""
_COLOURS = """On pixels that no map has seen. W2² is the mean squared distance left between the image's colours and the
target's; two samples of the target itself are {floor:.2g} apart, and no map can be asked for less. The gap is what a
map pays more than the cheapest rearrangement of its own image: 0 where it is optimal. A variance ratio under 1 has
shrunk the palette. The mean shift counts standard deviations of the target."""
_TRUTH = f"""Of photographs nobody knows the right map. In the plane below it is known: a round cloud is torn into
pieces by the gradient of a convex function, and no other map takes it there as cheaply, in squared distance. Each
method guesses that map from {_POINTS} points of the cloud and as many of the torn one, drawn apart, so that nothing
says which belongs to which; L2-UVP is the share of the target's variance by which it errs."""
_PLANE = """On points that no map has seen. The cosine compares displacements with the true ones; two samples of the
target are {floor:.2g} apart in W2². The entropic map is the average that a regularised plan makes of its targets, and
keeps all points that it was fitted on. The Monge map is a network, which starts from the linear map, learns from
entropic ones, and keeps what did best on points that it put aside; here it is trained for a moment only."""


def maps(folder: Path) -> Section:
    """Transfer colours between two photographs, and find a map in the plane, by every method.

    Args:
        folder: The tour's folder; the pictures go there.

    Returns:
        The section.
    """
    # Networks this small are no faster on two threads, and much slower where other programs run.
    with one_thread():
        blocks = (
            Text(text=_QUESTION),
            *_colours(folder),
            Text(text=_TRUTH),
            *_plane(folder),
            Text(text="The same from your own pictures, points or cells, and then on new ones:"),
            Code(
                text="pushforward fit-map day.jpg sunset.jpg --out runs/colour\n"
                "pushforward apply-map runs/colour another.jpg"
            ),
        )
    return Section(label="Act three", title="Maps for points not seen", blocks=blocks)


def _colours(folder: Path) -> tuple[Block, ...]:
    source, target = (samples.photograph(name, height=_HEIGHT) for name in ("china", "flower"))
    parts = split(source.reshape(-1, 3), target.reshape(-1, 3), share=_HELD_OUT, seed=0, most=_PIXELS)
    learned = _learn(parts, steps=_COLOUR_STEPS)
    pictures = [
        show.photograph_picture(folder, "colours-source", source, alt="A temple under a pale sky.", caption="Before."),
        show.photograph_picture(
            folder, "colours-target", target, alt="An orange dahlia before dark green.", caption="The colours wanted."
        ),
    ]
    for name in ("mean shift", "linear", "entropic", "Monge"):
        painted = recolour(learned[name], source.reshape(-1, 3)).reshape(source.shape)
        pictures.append(
            show.photograph_picture(
                folder,
                f"colours-{name.lower().replace(' ', '-')}",
                painted,
                alt=f"The temple in the dahlia's colours, by the {name} map.",
                caption=f"After: {name}.",
            )
        )
    rows, floor = _judged(parts, learned)
    return *pictures, show.maps_table(rows, caption=_COLOURS.format(floor=floor))


def _plane(folder: Path) -> tuple[Block, ...]:
    truth, generator = LogSumExp(dim=2, pieces=6), torch.Generator().manual_seed(0)
    x, y = (draw(_POINTS, generator).numpy() for draw in (truth.sample, truth.target))
    parts = split(x, y, share=_HELD_OUT, seed=0)
    true = truth.map(torch.from_numpy(parts.x_test)).numpy()
    learned = _learn(parts, steps=_PLANE_STEPS)
    rows, floor = _judged(parts, learned, true)
    arrows = {name: learned[name](parts.x_test) for name in ("linear", "Monge")} | {"true": true}
    return *_arrows(folder, parts, arrows), show.maps_table(rows, caption=_PLANE.format(floor=floor))


def _learn(parts: Split, *, steps: int) -> dict[str, Transform]:
    """All maps by name, the simplest first."""
    entropic = EntropicMap(random_state=0).fit(parts.x, parts.y)
    monge = MongeMap(steps=steps, batch_size=_BATCH, random_state=0).fit(parts.x, parts.y)
    return {**simple_maps(parts.x, parts.y), "entropic": entropic.transform, "Monge": monge.transform}


def _judged(
    parts: Split, learned: Mapping[str, Transform], true: Array | None = None
) -> tuple[dict[str, dict[str, float]], float]:
    """Each map's figures, and the floor under their W2²."""
    rows = {name: scores(parts, transform(parts.x_test), true=true) for name, transform in learned.items()}
    return rows, [row.pop("w2_floor") for row in rows.values()][-1]


def _arrows(folder: Path, parts: Split, arrows: Mapping[str, Array]) -> list[Picture]:
    captions = {
        "linear": "The linear map: the best that a matrix and a shift can do.",
        "Monge": "The Monge map: it has found the pieces from unpaired points.",
        "true": "The true map, which none of the methods was shown.",
    }
    return [
        show.moves_picture(
            folder, f"plane-{name.lower()}", (parts.x_test, mapped, parts.y_test), caption=captions[name]
        )
        for name, mapped in arrows.items()
    ]
