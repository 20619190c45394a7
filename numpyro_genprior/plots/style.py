"""What all pictures share: matplotlib when it is there, an axes to draw on, colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpyro_genprior.errors import message

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIDDEN = "#b9cde4"  # pixels that are not numbers
DATA, PRIOR, BAD = "#1f5fa8", "#b0b0b0", "#c8452c"  # what data determined, the prior, a warning


def pyplot() -> Any:
    """Matplotlib's pyplot, or how to get it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "ngp.plots needs matplotlib. Install it with pip install numpyro_genprior[plots]."
        ) from error
    return pyplot


def axes(ax: Axes | None, *, width: float = 6.0, height: float = 3.2) -> Axes:
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    figure, new = pyplot().subplots(figsize=(width, height), layout="constrained")
    del figure
    new.spines[["top", "right"]].set_visible(False)
    return new


def check(
    value: object,
    kind: type | tuple[type, ...],
    name: str,
    remedy: str,
    *,
    room: str = "diagnostics",
) -> None:
    """Refuse an object that is not the result which a picture draws."""
    if not isinstance(value, kind):
        raise TypeError(
            message(
                f"plots.{name} draws another kind of result",
                got=type(value).__name__,
                remedy=f"pass ngp.{room}.{remedy}",
            )
        )
