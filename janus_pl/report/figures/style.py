"""How the figures look, and how they become files of the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    ScalarFormatter,
)
from PIL import Image

from janus_pl.run.description import FULL_BATCH

COLUMN, PAGE = 3.4, 7.0  # inches, one and two columns of the paper
DPI = 200
WHITE = 252  # of 255: what the palette's coarse steps make of white
STYLE: dict[str, Any] = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.limits": (-2, 4),
    "axes.formatter.useoffset": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "janus_pl",  # ids of clip paths, random otherwise
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MARKERS = "osD^v<>PXh"
# Okabe and Ito's blue and vermilion; the lines differ too, for print in grey.
DYNAMICS: Mapping[str, Mapping[str, Any]] = {
    "SGD": {"color": "#0072B2", "linestyle": "-"},
    "GD": {"color": "#D55E00", "linestyle": (0, (4, 1.5))},
}
# From dark violet to rose: lighter with lambda, and each of ten is another hue.
SCALE = (
    *("#2b0a3d", "#4b1fa8", "#1f5fd8", "#0a86b4", "#009a86"),
    *("#36a148", "#8fa31c", "#cc9a08", "#f4934a", "#f59bb8"),
)
ELSE = "#009E73"  # Okabe and Ito's green, for other optimizers
ZOOM = "#0050D0"


def look(dynamics: str) -> Mapping[str, Any]:
    """Return the colour and line of a dynamics; full-batch optimizers have the dashes of GD."""
    whole = dynamics.startswith(FULL_BATCH)
    return DYNAMICS.get(dynamics) or {
        "color": ELSE,
        "linestyle": DYNAMICS["GD" if whole else "SGD"]["linestyle"],
    }


def colours(lams: Iterable[float]) -> dict[float, Any]:
    """Return one colour for each lambda along `SCALE`, dark for the smallest.

    Fewer lambdas than colours do without the last one, which is pale.
    """
    ordered = sorted(set(lams))
    scale = np.array([to_rgb(colour) for colour in SCALE])
    end = len(SCALE) - (1 if len(ordered) >= len(SCALE) else 2)
    places = np.linspace(0, end, len(ordered)) if len(ordered) > 1 else [0.0]
    red, green, blue = (np.interp(places, range(len(SCALE)), part) for part in scale.T)
    return dict(zip(ordered, zip(red, green, blue, strict=True), strict=False))


def number(value: float) -> str:
    """Return a lambda as the paper prints it, without the zeros.

    >>> number(0), number(1e-3), number(5e-5), number(0.02)
    ('0', '1e-3', '5e-5', '2e-2')
    """
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def power(value: float) -> str:
    """Return a number with one digit as a power of ten; plain text is drawn faster than math text.

    >>> power(1e-3), power(1.0), power(5e2)
    ('10⁻³', '10⁰', '5×10²')
    """
    mantissa, exponent = f"{value:.0e}".split("e")
    ten = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return ten if mantissa == "1" else f"{mantissa}×{ten}"


def canvas(width: float, height: float) -> Canvas:
    """Return an empty figure, width and height in inches, that needs no pyplot."""
    return Canvas(figsize=(width, height), layout="constrained")


def plain_ticks(axes: Axes, x: int = 6, y: int | None = None) -> None:
    """Set a largest number of ticks; powers of ten go to the axis' end, nothing is subtracted."""
    for axis, ticks in ((axes.xaxis, x), (axes.yaxis, y)):
        if ticks is not None:
            axis.set_major_locator(MaxNLocator(ticks, steps=(1, 2, 5, 10)))
            formatter = ScalarFormatter(useOffset=False)
            formatter.set_powerlimits((-2, 4))
            axis.set_major_formatter(formatter)


def logarithmic(axes: Axes) -> None:
    """Make the y axis logarithmic, labelled at powers of ten; call it after the drawing.

    Where it spans less than two of them, also at twice and five times.
    """
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axes.yaxis.set_major_formatter(lambda value, _: power(value))
    axes.yaxis.set_minor_locator(NullLocator())  # these ticks took a sixth of a report's time


def from_zero(axes: Axes) -> None:
    """Let the y axis go from zero to above all that is drawn; call it after the drawing."""
    highest = axes.dataLim.y1
    axes.set_ylim(0, 1.06 * highest if np.isfinite(highest) and highest > 0 else 1)


def keep_limits(axes: Axes) -> None:
    """Let what is drawn later leave the y axis as it is."""
    axes.set_ylim(axes.get_ylim())


def tell_empty(axes: Axes, what: str) -> None:
    """Say so in a panel that has nothing to show."""
    if not (axes.lines or axes.patches):
        axes.text(0.5, 0.5, f"no {what} to show", transform=axes.transAxes, ha="center")
        axes.set(xticks=[], yticks=[])


def handle(label: str, **look: Any) -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], label=label, **look)


def legend(figure: Canvas, handles: list[Line2D], columns: int) -> None:
    """Draw the legend below all panels, where it hides nothing."""
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def save(figure: Canvas, folder: Path, key: str) -> list[Path]:
    """Save KEY.png and KEY.svg, without a date or a version in them."""
    png, svg = folder / f"{key}.png", folder / f"{key}.svg"
    figure.set_dpi(DPI)
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    # A palette takes a third of the bytes; there are few colours.
    pixels = Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("RGB")
    palette = pixels.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.putpalette([255 if v > WHITE else v for v in palette.getpalette() or []])
    # A level of 9, which `optimize` has, takes eight times as long for 6% fewer bytes.
    palette.save(png, compress_level=6, dpi=(DPI, DPI))
    figure.set_layout_engine("none")  # it is laid out, and would take as long again
    # `savefig` would lay out and draw once more before it draws this.
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]
