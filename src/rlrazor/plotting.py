"""The look of every figure: one style, colors with one meaning, a style a method, and helpers that draw on an `ax`."""

import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from rlrazor import methods
from rlrazor.laws import Estimate

COLORS = {
    "forward KL": "#d1495b",  # the loss KL(target || policy), which is SFT's
    "reverse KL": "#1f6fb4",  # the loss KL(policy || target), which is RL's
    "forward drift": "#5e3c99",  # KL(ref || policy)
    "reverse drift": "#8c5a2b",  # KL(policy || ref)
    "oracle": "#2e8b57",
    "target": "#000000",  # always dashed
    "ref": "#8c8c8c",
    "exact": "#3b3b3b",
    "measured": "#b07aa1",
}
K_COLORS = {  # of KL(policy || ref); k2 and k3 as the divergence that they descend as losses
    "k1": "#e0a030",
    "k2": COLORS["reverse KL"],
    "k3": COLORS["forward KL"],
    "k3 turned": "#6a994e",
}


class Style(NamedTuple):
    """How a method is drawn.

    Attributes:
        color: of everything that belongs to it.
        marker: of its points.
        line: of its lines.
    """

    color: str
    marker: str
    line: str


_METHOD_COLORS = {  # imitation warm, policy gradient blue
    methods.SFT: COLORS["forward KL"],
    methods.SFT_1: "#8f1d2c",
    methods.SFT_2: "#edae49",
    methods.UNIFORM_SFT: "#f4a582",
    methods.ORACLE_SFT: COLORS["oracle"],
    methods.DFT: "#b5651d",
    methods.DISTILLED_GRPO: "#e58fa0",
    methods.SIMPO: "#e07b39",
    methods.EXACT_RL: "#0b2e59",
    methods.REINFORCE: "#66b2d6",
    methods.RLOO: "#4a86c5",
    methods.DR_GRPO: "#2f4b9b",
    methods.GRPO: COLORS["reverse KL"],
}
METHOD_STYLE = {
    name: Style(color, marker, line)
    for method, color in _METHOD_COLORS.items()
    for name, marker, line in (
        (method, "o", "-"),
        (methods.plus_kl(method), "^", "--"),
        (methods.plus_replay(method), "x", ":"),
    )
}

LABELS = {
    "forward drift": r"forward drift KL$(\pi_0\Vert\pi)$ (nats)",
    "reverse drift": r"reverse drift KL$(\pi\Vert\pi_0)$ (nats)",
    "forward KL": r"KL$(\pi_\star\Vert\pi)$",
    "reverse KL": r"KL$(\pi\Vert\pi_\star)$",
    "excess": r"KL$(\pi\Vert\pi_0)-\mathrm{kl}(J,p_0)$ (nats)",
    "success": r"success rate $J$",
    "time": "time (rate × steps)",
    "forgetting": "forgetting",
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


def panels(mosaic: Sequence[Sequence[str]], height: float, **options: Any) -> tuple[Figure, dict[str, Axes]]:
    """A figure of named panels, lettered in the order of the mosaic.

    Args:
        mosaic: rows of names; a name that stands twice spans both places.
        height: of the figure in inches; it is as wide as a page.
        **options: of `Figure.subplot_mosaic`, such as `width_ratios`.

    Returns:
        The figure, and its axes by name.

    Example:
        >>> figure, axes = panels([["path", "end"]], height=2.4)
        >>> list(axes), axes["end"].get_title(loc="left")
        (['path', 'end'], 'b')
        >>> plt.close(figure)
    """
    figure = plt.figure(figsize=(FULL_WIDTH, height))
    axes: dict[str, Axes] = figure.subplot_mosaic([list(row) for row in mosaic], **options)
    order = dict.fromkeys(name for row in mosaic for name in row if name != ".")
    for text, name in zip(string.ascii_lowercase, order, strict=False):
        letter(axes[name], text)
    return figure, {name: axes[name] for name in order}


def theory(ax: Axes, x: Any, y: Any, **style: Any) -> Axes:
    """A closed form or an exact path: a line.

    Args:
        ax: where to draw.
        x: abscissae, `[points]`.
        y: ordinates, `[points]` or `[points, lines]`.
        **style: of `Axes.plot`.

    Returns:
        `ax`.

    Example:
        >>> ax = theory(plt.figure().add_subplot(), [0, 1], [1, 2])
        >>> ax.lines[0].get_marker()
        'None'
    """
    ax.plot(x, y, **style)
    return ax


def samples(ax: Axes, x: Any, y: Any, *, at_most: int = 40, **style: Any) -> Axes:
    """A simulation: points, of which at most so many are shown, evenly spaced.

    Args:
        ax: where to draw.
        x: abscissae, `[points]`.
        y: ordinates, `[points]`.
        at_most: how many points to show.
        **style: of `Axes.plot`.

    Returns:
        `ax`.

    Example:
        >>> ax = samples(plt.figure().add_subplot(), range(100), range(100), at_most=10)
        >>> len(ax.lines[0].get_xdata())
        10
    """
    x, y = np.asarray(x), np.asarray(y)
    every = max(-(-len(x) // at_most), 1)
    points: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 2.5} | style
    ax.plot(x[::every], y[::every], **points)
    return ax


def band(ax: Axes, x: Any, estimate: Estimate, *, color: str, label: str | None = None, line: str = "o-") -> Axes:
    """A statistic along x, with its interval as a band.

    Args:
        ax: where to draw.
        x: abscissae, `[points]`.
        estimate: of `[points]` each.
        color: of line and band.
        label: of the line.
        line: its format.

    Returns:
        `ax`.

    Example:
        >>> x = np.arange(3.0)
        >>> ax = band(plt.figure().add_subplot(), x, Estimate(x, x - 1, x + 1), color="black")
        >>> len(ax.collections)
        1
    """
    ax.plot(x, estimate.value, line, color=color, label=label, linewidth=1.0)
    ax.fill_between(x, np.asarray(estimate.low), np.asarray(estimate.high), color=color, alpha=0.2, linewidth=0)
    return ax


def note(ax: Axes, text: str, xy: tuple[float, float], **options: Any) -> Axes:
    """A small remark at a place of the panel.

    Args:
        ax: where to draw.
        text: what it says.
        xy: where, in data coordinates unless `xycoords` says otherwise.
        **options: of `Axes.annotate`.

    Returns:
        `ax`.

    Example:
        >>> note(plt.figure().add_subplot(), "here", (0.5, 0.5)).texts[0].get_text()
        'here'
    """
    small: dict[str, Any] = {"fontsize": 6.5} | options
    ax.annotate(text, xy, **small)
    return ax


def key(ax: Axes, label: str, **style: Any) -> Axes:
    """An entry of the legend that no data carries.

    Args:
        ax: whose legend.
        label: the entry.
        **style: of `Axes.plot`.

    Returns:
        `ax`.

    Example:
        >>> key(plt.figure().add_subplot(), "exact", color="black").get_legend_handles_labels()[1]
        ['exact']
    """
    ax.plot([], [], label=label, **style)
    return ax


def success_axis(ax: Axes, low: float, high: float = 0.9995) -> Axes:
    """A horizontal axis of success rates on a scale of log failures, where 0.9, 0.99 and 0.999 are evenly spaced.

    Args:
        ax: where to draw.
        low: smallest success rate shown.
        high: largest one, below 1.

    Returns:
        `ax`.

    Example:
        >>> ax = success_axis(plt.figure().add_subplot(), 0.85)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['0.85', '0.95', '0.99', '0.999']
    """
    ax.set_xscale("function", functions=(lambda j: -np.log10(np.clip(1 - j, 1e-9, None)), lambda x: 1 - 10.0**-x))
    candidates = (0.0, 0.5, 0.75, 0.85, 0.95, 0.99, 0.999, 0.9999)
    ticks = [tick for tick in candidates if low - 1e-9 <= tick <= high]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(xlim=(low, high), xlabel=LABELS["success"])
    return ax
