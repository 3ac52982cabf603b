"""The look of every figure: one style, colours with one meaning, and helpers that take an `ax` and return it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

COLORS = {
    "forward": "#d1495b",  # forward KL, SFT
    "forward_light": "#edae49",
    "reverse": "#1f6fb4",  # reverse KL, RL
    "reverse_light": "#66b2d6",
    "oracle": "#2e8b57",
    "target": "#000000",  # always dashed
    "ref": "#8c8c8c",
}

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "mathtext.fontset": "dejavusans",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "svg.hashsalt": "rlrazor",
    "svg.fonttype": "path",
}

FULL_WIDTH, COLUMN_WIDTH = 7.2, 3.5  # inches

_TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw inside this context in the style of the figures.

    Yields:
        Nothing; on leaving, the style before comes back.

    Example:
        >>> with figure_style():
        ...     print(plt.rcParams["axes.titlesize"])
        8.0
    """
    with plt.rc_context(_STYLE):
        yield


def simplex_points(p: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
    """Distributions over three outcomes as points of an equilateral triangle with unit sides.

    Args:
        p: probabilities, `[..., 3]`.

    Returns:
        Cartesian coordinates, `[..., 2]`; outcome 0 is bottom left, 1 bottom right, 2 on top.

    Example:
        >>> import numpy as np
        >>> simplex_points(np.array([0.5, 0.5, 0.0])).tolist()
        [0.5, 0.0]
    """
    points: Float[np.ndarray, "*batch 2"] = np.asarray(p) @ _TRIANGLE
    return points


def draw_simplex(ax: Axes, labels: tuple[str, str, str] = ("$y_0$", "$y_1$", "$y_2$")) -> Axes:
    """The empty triangle of three outcomes, with its corners labelled.

    Args:
        ax: where to draw.
        labels: names of the outcomes.

    Returns:
        `ax`.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> ax = draw_simplex(plt.figure().add_subplot())
        >>> [text.get_text() for text in ax.texts]
        ['$y_0$', '$y_1$', '$y_2$']
    """
    ax.fill(*_TRIANGLE.T, facecolor="none", edgecolor="black", linewidth=0.8, zorder=1)
    for corner, label, shift in zip(_TRIANGLE, labels, ((-0.05, -0.05), (0.05, -0.05), (0.0, 0.05)), strict=True):
        x, y = corner + shift
        ax.text(x, y, label, ha="center", va="center")
    ax.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.12, 0.98))
    ax.axis("off")
    return ax


def letter(ax: Axes, text: str) -> Axes:
    """A bold panel letter above the top left corner.

    Args:
        ax: the panel.
        text: the letter.

    Returns:
        `ax`.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> letter(plt.figure().add_subplot(), "a").get_title(loc="left")
        'a'
    """
    ax.set_title(text, loc="left", fontweight="bold")
    return ax
