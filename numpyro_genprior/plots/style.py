"""Style that all plots share: colours, font sizes, axes, legends, colour bars, captions."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from numpyro_genprior.errors import message

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

HIDDEN = "#b9cde4"  # pixels that are NaN
DATA, PRIOR, BAD = "#1f5fa8", "#b0b0b0", "#c8452c"  # what the data determine, the prior, a warning

# Font sizes in points.
FIGURE_TITLE, PANEL_TITLE, LABEL, SMALL, TICK = 12, 11, 9, 8, 7
CAPTION_LINE = 0.16  # height of a line of a caption, inches


def pyplot() -> Any:
    """Matplotlib's pyplot; if it is missing, the error says how to install it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "ngp.plots needs matplotlib. Install it with pip install numpyro_genprior[plots]."
        ) from error
    return pyplot


def axes(ax: Axes | None, *, width: float = 6.0, height: float = 3.2) -> Axes:
    """`ax` if it is given, or the axes of a new figure."""
    if ax is not None:
        return ax
    new = pyplot().subplots(figsize=(width, height), layout="constrained")[1]
    open_frame(new)
    return new


def open_frame(ax: Axes) -> None:
    """Remove the upper and the right spine."""
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax: Axes, *, columns: int = 3) -> None:
    """A legend above the axes, where it covers nothing; a title moves above it."""
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    columns = min(columns, len(labels))
    ax.legend(
        handles,
        labels,
        frameon=False,
        fontsize=SMALL,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
    )
    if ax.get_title():
        rows = math.ceil(len(labels) / columns)
        ax.set_title(ax.get_title(), pad=8 + 1.6 * SMALL * rows, fontsize=PANEL_TITLE)


def colour_bar(ax: Axes, image: ScalarMappable) -> Colorbar:
    """A colour bar below the panel and as wide as it, so that all panels keep one size."""
    inset = ax.inset_axes((0.06, -0.09, 0.88, 0.045))
    bar = ax.figure.colorbar(image, cax=inset, orientation="horizontal")
    bar.ax.tick_params(labelsize=TICK, length=2, pad=1)
    return bar


def wrap(caption: str | None, width: int) -> list[str]:
    """Lines of a caption with at most `width` characters each."""
    return textwrap.wrap(caption or "", width)


def finish(figure: Figure, title: str | None, lines: list[str]) -> None:
    """A title above the figure and a caption below it, if there are any."""
    if title:
        figure.suptitle(title, fontsize=FIGURE_TITLE)
    if lines:
        figure.supxlabel("\n".join(lines), fontsize=LABEL, x=0.02, ha="left")


def check(
    value: object,
    kind: type | tuple[type, ...],
    name: str,
    remedy: str,
    *,
    module: str = "diagnostics",
) -> None:
    """Raise a TypeError if `value` is not of the type that the plot shows."""
    if not isinstance(value, kind):
        raise TypeError(
            message(
                f"plots.{name} draws another kind of result",
                got=type(value).__name__,
                remedy=f"pass ngp.{module}.{remedy}",
            )
        )
