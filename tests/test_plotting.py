"""Helpers of the figures: geometry of the triangle, a style that leaves no trace, one look a method, panels."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb

from rlrazor import methods
from rlrazor.laws import Estimate
from rlrazor.plotting import (
    COLORS,
    LABELS,
    METHOD_STYLE,
    band,
    draw_simplex,
    figure_style,
    key,
    letter,
    note,
    panels,
    samples,
    simplex_points,
    success_axis,
    theory,
)


@pytest.fixture
def ax():
    axes = plt.figure().add_subplot()
    yield axes
    plt.close(axes.figure)


def test_corners_of_the_simplex_form_a_unit_equilateral_triangle():
    corners = simplex_points(np.eye(3))
    sides = [np.linalg.norm(corners[i] - corners[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    np.testing.assert_allclose(sides, 1.0)


def test_simplex_points_are_affine_in_the_probabilities():
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.7, 0.1, 0.2])
    np.testing.assert_allclose(simplex_points(0.3 * p + 0.7 * q), 0.3 * simplex_points(p) + 0.7 * simplex_points(q))


def test_style_applies_inside_its_context_only():
    before = dict(plt.rcParams)
    with figure_style():
        assert plt.rcParams["svg.hashsalt"] == "rlrazor"
    assert dict(plt.rcParams) == before


def test_helpers_return_the_axes_they_drew_on(ax):
    estimate = Estimate(np.ones(3), np.zeros(3), np.full(3, 2.0))
    assert draw_simplex(ax) is ax
    assert letter(ax, "b") is ax
    assert ax.get_title(loc="left") == "b"
    assert len(ax.patches) == 1
    for drawn in (
        theory(ax, [0, 1], [0, 1]),
        samples(ax, [0, 1], [0, 1]),
        band(ax, np.arange(3), estimate, color="k"),
        note(ax, "here", (0.5, 0.5)),
        key(ax, "label", color="k"),
        success_axis(ax, 0.5),
    ):
        assert drawn is ax


def test_theory_is_a_line_and_samples_are_points_thinned_to_what_can_be_told_apart(ax):
    x = np.arange(1000.0)
    theory(ax, x, x)
    samples(ax, x, x, at_most=40)
    line, points = ax.get_lines()
    assert (line.get_linestyle(), line.get_marker()) == ("-", "None")
    assert len(line.get_xdata()) == 1000
    assert (points.get_linestyle(), points.get_marker()) == ("None", "o")
    assert 20 <= len(points.get_xdata()) <= 40


def test_panels_have_their_letters_in_order():
    figure, axes = panels([["a", "b"], ["c", "c"]], 3.0)
    assert {name: panel.get_title(loc="left") for name, panel in axes.items()} == {"a": "a", "b": "b", "c": "c"}
    plt.close(figure)


def test_a_success_axis_spreads_what_is_close_to_one(ax):
    success_axis(ax, 0.5)
    low, high = ax.get_xlim()
    place = ax.transData.transform([[low, 0], [0.9, 0], [high, 0]])[:, 0]
    assert 0.2 < (place[1] - place[0]) / (place[2] - place[0]) < 0.8


def test_a_key_adds_a_legend_entry_and_no_data(ax):
    key(ax, "SFT", color="k")
    assert ax.get_legend_handles_labels()[1] == ["SFT"]
    assert all(len(line.get_xdata()) == 0 for line in ax.get_lines())


def test_each_color_has_one_meaning():
    assert len(set(COLORS.values())) == len(COLORS)
    shared = {"forward KL", "reverse KL", "oracle"}  # losses, and the methods that descend them
    other = {color for name, color in COLORS.items() if name not in shared}
    assert not other & {style.color for style in METHOD_STYLE.values()}


def test_every_method_has_a_look_of_its_own():
    assert tuple(sorted(METHOD_STYLE)) == tuple(sorted(methods.METHODS))
    assert len(set(METHOD_STYLE.values())) == len(METHOD_STYLE)


def test_imitation_is_warm_and_policy_gradient_blue():
    def hue(method):
        return rgb_to_hsv(to_rgb(METHOD_STYLE[method].color))[0]

    assert all(0.5 < hue(method) < 0.7 for method in methods.POLICY_GRADIENT)
    warm = set(methods.IMITATION) - {methods.ORACLE_SFT}
    assert all(hue(method) < 0.15 or hue(method) > 0.9 for method in warm)


def test_colors_of_methods_can_be_told_apart():
    colors = {style.color for style in METHOD_STYLE.values()}
    distances = [np.linalg.norm(np.subtract(to_rgb(a), to_rgb(b))) for a, b in itertools.combinations(colors, 2)]
    assert min(distances) > 0.15


def test_labels_write_the_formula_of_each_drift():
    assert r"\pi_0\Vert\pi" in LABELS["forward drift"]
    assert r"\pi\Vert\pi_0" in LABELS["reverse drift"]
