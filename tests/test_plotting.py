"""Helpers of the figures: geometry of the triangle, and a style that leaves no trace."""

import matplotlib.pyplot as plt
import numpy as np

from rlrazor.plotting import COLORS, draw_simplex, figure_style, letter, simplex_points


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


def test_helpers_return_the_axes_they_drew_on():
    ax = plt.figure().add_subplot()
    assert draw_simplex(ax) is ax
    assert letter(ax, "b") is ax
    assert ax.get_title(loc="left") == "b"
    assert len(ax.patches) == 1
    plt.close(ax.figure)


def test_each_colour_has_one_meaning():
    assert len(set(COLORS.values())) == len(COLORS)
