from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.quiver import Quiver
from scipy.sparse import coo_array

from pushforward import plots


@pytest.fixture
def ax() -> Axes:
    return plots.figure(4, 3).subplots()


def _luminance(colour: str) -> float:
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(("theme", "card"), [("light", "#ffffff"), ("dark", "#1a1e24")])
def test_colours_stand_out_from_their_page(theme: plots.ThemeName, card: str):
    with plots.theme(theme):
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
        for colour, least in [*((colour, 3.0) for colour in cycle), (mpl.rcParams["text.color"], 4.5)]:
            bright, dim = sorted((_luminance(colour), _luminance(card)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= least, colour


def test_a_theme_is_put_back():
    before = dict(mpl.rcParams)
    with plots.theme("dark"):
        assert dict(mpl.rcParams) != before
    assert dict(mpl.rcParams) == before


def test_convergence_draws_one_line_a_method(ax: Axes):
    curves = {"sinkhorn": ([1, 2, 3], [1.0, 0.1, 0.0]), "newton": ([1, 2], [1.0, np.nan]), "empty": ([], [])}
    assert plots.convergence(ax, curves, tol=1e-9) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_legend_handles_labels()[1] == ["Sinkhorn", "Newton"]
    line = ax.get_legend_handles_labels()[0][0]
    np.testing.assert_array_equal(line.get_xydata(), [[1, 1.0], [2, 0.1]])  # an error of 0 has no logarithm


def test_a_large_plan_is_shown_by_sums(ax: Axes):
    plan = np.random.default_rng(0).random((70, 1000))
    plots.plan_picture(ax, plan, pixels=50)
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (50, 50)
    assert np.square(shown).sum() == pytest.approx(plan.sum())


def test_arrows_are_the_heaviest_entries(ax: Axes):
    x, y = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [1.0, 2.0]])
    plots.arrows(ax, x, y, coo_array([[0.7, 0.1], [0.0, 0.2]]), most=2)
    segments = [segment.tolist() for segment in ax.collections[0].get_segments()]
    assert sorted(segments) == [[[0, 0], [0, 2]], [[1, 0], [1, 2]]]


def test_arrows_of_an_empty_plan(ax: Axes):
    assert plots.arrows(ax, np.zeros((2, 2)), np.zeros((2, 2)), coo_array((2, 2))) is ax
    assert not ax.collections


def test_moves_end_at_the_images_and_stay_inside(ax: Axes):
    x, mapped = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]), np.array([[9.0, 0.0], [1.0, 1.0], [2.0, -7.0]])
    assert plots.moves(ax, x, mapped, np.zeros((4, 2)), most=2) is ax
    (arrows,) = (drawn for drawn in ax.collections if isinstance(drawn, Quiver))
    np.testing.assert_array_equal(arrows.get_offsets(), x[[0, 2]])
    np.testing.assert_array_equal(np.c_[arrows.U, arrows.V], (mapped - x)[[0, 2]])
    assert ax.get_legend_handles_labels()[1] == ["target", "source"]
    assert ax.get_xlim()[1] >= 9
    assert ax.get_ylim()[0] <= -7


def test_frames_keep_the_mass_and_move_it_half_way(ax: Axes):
    plan = coo_array(([1.0], ([0], [2])), shape=(3, 3))  # one unit from the first pixel of three to the last
    plots.frames(ax, plan, (1, 3), steps=3, zoom=2)
    strip = np.asarray(ax.images[0].get_array())[0]
    assert strip.tolist() == [1, 1, 0, 0, 0, 0] + [0, 0] + [0, 0, 1, 1, 0, 0] + [0, 0] + [0, 0, 0, 0, 1, 1]


def test_bounds_show_what_is_known(ax: Axes):
    plots.bounds(ax, 1.0, 2.0, exact=1.5, regularised=1.7)
    assert {text.get_text() for text in ax.texts} == {"certified bounds", "exact", "<P, C>"}


def test_bounds_by_epsilon(ax: Axes):
    plots.bounds_by_epsilon(ax, [0.1, 1.0], [1.0, 0.5], [1.2, 2.0], exact=1.1)
    assert ax.get_legend_handles_labels()[1] == ["upper bound", "lower bound", "exact"]
    assert ax.xaxis_inverted()


def test_points_area_is_weight(ax: Axes):
    plots.points(ax, [[0, 0], [1, 1]], [[2, 2]], a=[1, 3])
    sizes = ax.collections[0].get_sizes()
    assert sizes[1] == pytest.approx(3 * sizes[0])


def test_training_draws_one_line_a_run_and_marks_its_end(ax: Axes):
    plots.training(
        ax, {"a": ([0, 1, 2], [3.0, np.nan, 1.0]), "b": ([0, 1], [2.0, 2.0]), "none": ([], [])}, quantity="loss"
    )
    lines = [line for line in ax.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == ["a", "b"]
    np.testing.assert_array_equal(lines[0].get_xdata(), [0, 2])
    ends = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_marker() == "o"]
    assert ends == [[2.0, 1.0], [1.0, 2.0]]
    # Told apart without colour.
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert ax.get_ylabel() == "loss"
