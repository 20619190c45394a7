"""`Result`: what every result of inference, training and diagnosis offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_genprior.errors import message

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Result(ABC):
    """The interface of results: words, warnings, a picture and a data set.

    ``print(result)`` states the finding in sentences, ``repr(result)`` fits on one line. A result
    that comes to a conclusion has a property ``verdict`` as well.

    Attributes
    ----------
    warnings
        Reasons to doubt the result, one sentence each; empty if there are none.
    """

    warnings: tuple[str, ...]

    @abstractmethod
    def __str__(self) -> str:
        """The finding in sentences."""

    @abstractmethod
    def __repr__(self) -> str:
        """One short line."""

    @abstractmethod
    def plot(self, ax: Axes | None = None) -> Axes | Figure:
        """Draw the result; needs matplotlib (the extra ``plots``).

        Parameters
        ----------
        ax
            Axes to draw in; None for a new figure.

        Returns
        -------
        matplotlib.axes.Axes or matplotlib.figure.Figure
            The axes, or the whole figure if the picture has several panels.

        Raises
        ------
        ValueError
            If `ax` is given and the picture has several panels.
        """

    @abstractmethod
    def to_dataset(self) -> xarray.Dataset:
        """The numbers of the result as an `xarray.Dataset` with named dimensions."""


def dataset(
    variables: Mapping[str, tuple[tuple[str, ...], Any]],
    coords: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xarray.Dataset:
    """An `xarray.Dataset` of ``{name: (dimensions, array)}``; imports xarray."""
    import xarray

    return xarray.Dataset(
        {name: (dims, np.asarray(array)) for name, (dims, array) in variables.items()},
        coords=dict(coords or {}),
        attrs=dict(attrs or {}),
    )


def axis_names(ndim: int, prefix: str = "", *, batch_ndim: int = 0) -> tuple[str, ...]:
    """Names of an array's dimensions for `dataset`.

    ``("entry",)`` for a vector, ``("row", "col")`` for an image, ``("row", "col", "channel")`` with
    channels, ``("axis0", "axis1", ...)`` for more dimensions. The first `batch_ndim` of the `ndim`
    dimensions are ``"batch_dim_0"`` and so on instead. `prefix` is put in front of
    each, with an underscore: the name of the site if a data set holds several.
    """
    ndim -= batch_ndim
    event = {1: ("entry",), 2: ("row", "col"), 3: ("row", "col", "channel")}.get(ndim)
    event = event or tuple(f"axis{i}" for i in range(ndim))
    names = (*(f"batch_dim_{i}" for i in range(batch_ndim)), *event)
    return tuple(f"{prefix}_{name}" for name in names) if prefix else names


def refuse_axes(ax: Axes | None, what: str) -> None:
    """Raise if `ax` was given for a picture that has several panels."""
    if ax is not None:
        raise ValueError(
            message(
                f"The plot of {what} has several panels",
                expected="no ax",
                got=type(ax).__name__,
                remedy="call plot() without ax, and use the axes of the figure that it returns",
            )
        )
