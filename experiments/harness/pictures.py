"""Figures as bytes: PNG and SVG, and a GIF of those that move."""

import io
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.backends.backend_svg import FigureCanvasSVG

from rlrazor.plotting import figure_style


def of(figure: Any, config: Any, results: Any, stem: Path) -> dict[Path, bytes]:
    """The pictures of a figure, each under its path: the stem and an ending."""
    with figure_style():
        picture = figure.plot(config, results)
        png, svg = io.BytesIO(), io.BytesIO()
        picture.savefig(png, format="png", dpi=200)
        picture.set_layout_engine("none")  # the second picture has the layout that the first has solved
        FigureCanvasSVG(picture).print_svg(svg, metadata={"Date": None})
        plt.close(picture)
        pictures = {stem.with_suffix(".png"): png.getvalue(), stem.with_suffix(".svg"): svg.getvalue()}
        if hasattr(figure, "animate"):
            pictures[stem.with_suffix(".gif")] = animation_bytes(figure.animate(config, results))
    return pictures


def animation_bytes(animation: Any) -> bytes:
    """The animation as a GIF that loops, every frame in the layout of the first."""
    animation._fig.canvas.draw()
    animation._fig.set_layout_engine("none")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.gif"
        animation.save(path, writer="pillow", fps=12, dpi=80)
        plt.close(animation._fig)
        return path.read_bytes()
