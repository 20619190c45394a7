"""Names of the dimensions of sites, and xarray datasets with these names."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.sites.model_reader import Site

if TYPE_CHECKING:
    import xarray

IMAGE_DIMS = ("row", "col")

EventDims: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of event dimensions: the same for all events, or by site."""

Coords: TypeAlias = Mapping[str, Sequence[Any] | ArrayLike]
"""Coordinate values by name of dimension."""


class Labels:
    """Names of the dimensions of sites, and their coordinates.

    Parameters
    ----------
    sites
        The sites of the model, by name.
    shapes
        Shapes of one draw of each variable.
    event_dims
        As for `to_arviz`.
    coords
        As for `to_arviz`.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        shapes: Mapping[str, tuple[int, ...]],
        event_dims: EventDims | None,
        coords: Coords | None,
    ) -> None:
        self.sites = sites
        self.coords = {dim: np.asarray(values) for dim, values in (coords or {}).items()}
        self._named = _by_site(sites, shapes, event_dims)
        self.dims = {name: self._dims(name, shape) for name, shape in shapes.items()}
        if event_dims is None:
            self._disambiguate(shapes)
        self._check(shapes)

    def _dims(self, name: str, shape: tuple[int, ...]) -> list[str]:
        site = self.sites.get(name)
        names: list[str | None] = [None] * len(shape)
        batch = min(site.batch_ndim, len(shape)) if site else 0
        for plate, dim, size in site.plates if site else ():
            axis = batch + dim
            if 0 <= axis < batch and shape[axis] == size:
                names[axis] = plate
        chosen = self._named.get(name, site.event_dims if site else ())
        if 0 < len(chosen) <= len(shape):
            names[len(shape) - len(chosen) :] = chosen
        elif site and site.role == "latent" and site.core_ndim == 1:
            names[-1] = f"{name}_dim"
        return [dim or f"{name}_dim_{i}" for i, dim in enumerate(names)]

    def _disambiguate(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give dimensions of different sizes different names."""
        sizes: dict[str, set[int]] = {}
        for name, shape in shapes.items():
            for dim, size in zip(self.dims[name], shape, strict=True):
                sizes.setdefault(dim, set()).add(size)
        for name, dims in self.dims.items():
            if any(dim in IMAGE_DIMS and len(sizes[dim]) > 1 for dim in dims):
                site = self.sites.get(name)
                base = site.event if site and site.role == "noise" else name
                self.dims[name] = [f"{base}_{d}" if d in IMAGE_DIMS else d for d in dims]

    def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse names that repeat within a variable, sizes and coordinates that do not match."""
        seen: dict[str, tuple[str, int]] = {}
        for name, shape in shapes.items():
            dims = self.dims[name]
            if len({"chain", "draw", *dims}) < len(dims) + 2:
                raise ValueError(
                    message(
                        f"to_arviz: the dimensions of {name!r} do not have distinct names",
                        expected="distinct names, other than chain and draw",
                        got=tuple(dims),
                        remedy="give each dimension of the event, and each plate, its own name",
                    )
                )
            for dim, size in zip(dims, shape, strict=True):
                other, known = seen.setdefault(dim, (name, size))
                if size != known:
                    raise ValueError(
                        message(
                            f"to_arviz: dimension {dim!r} has size {known} in {other!r} and {size} "
                            f"in {name!r}",
                            remedy="give each site its own names, event_dims="
                            f"{{{name!r}: ('{name}_{dim}', ...)}}",
                        )
                    )
                if dim in self.coords and len(self.coords[dim]) != size:
                    raise ValueError(
                        message(
                            f"to_arviz: coords[{dim!r}] do not match {name!r}",
                            expected=f"{size} values",
                            got=len(self.coords[dim]),
                            remedy="give one coordinate for each entry of the dimension",
                        )
                    )

    def dataset(
        self,
        variables: Mapping[str, ArrayLike],
        lead: tuple[str, ...] = (),
        only_batch: bool = False,
    ) -> xarray.Dataset:
        """An `xarray.Dataset` of variables with leading dimensions `lead`.

        With `only_batch`, variables have no event dimensions (log likelihoods).
        """
        import xarray as xr

        arrays, coords = {}, {}
        for name, values in variables.items():
            array = np.asarray(values)
            shape = array.shape[len(lead) :]
            dims = self.dims.get(name, [])
            dims = dims[: len(shape)] if only_batch else dims
            if len(dims) != len(shape):  # not a site of the posterior, or of another shape there
                dims = self._dims(name, shape)
            arrays[name] = ((*lead, *dims), array)
            for dim, size in zip((*lead, *dims), array.shape, strict=True):
                given = self.coords.get(dim)
                fits = given is not None and len(given) == size
                coords[dim] = given if fits else np.arange(size)
        return xr.Dataset(arrays, coords=coords, attrs=_attributes())


def _by_site(
    sites: Mapping[str, Site], shapes: Mapping[str, tuple[int, ...]], event_dims: EventDims | None
) -> dict[str, tuple[str, ...]]:
    if isinstance(event_dims, Mapping):
        named = {name: _names(dims) for name, dims in event_dims.items()}
        noises = {
            site.noise: dims
            for name, dims in named.items()
            if (site := sites.get(name)) is not None and site.noise is not None
        }
        return _checked({**noises, **named}, sites, shapes)
    pattern = IMAGE_DIMS if event_dims is None else _names(event_dims)
    ndims = {
        name: (len(shapes[name]) - site.batch_ndim, site.core_ndim)
        for name, site in sites.items()
        if name in shapes and site.role in ("event", "noise")
    }
    if event_dims is not None and ndims and not any(len(pattern) in n for n in ndims.values()):
        raise ValueError(
            message(
                f"to_arviz: event_dims={pattern} has {len(pattern)} names, and no event has as "
                "many dimensions",
                expected=", ".join(f"{n} for {name!r}" for name, (_, n) in ndims.items()),
                got=len(pattern),
                remedy="name them site by site, event_dims={'x': (...)}",
            )
        )
    return {name: pattern for name, ndim in ndims.items() if len(pattern) in ndim}


def _names(dims: Sequence[str]) -> tuple[str, ...]:
    return (dims,) if isinstance(dims, str) else tuple(dims)


def _checked(
    named: dict[str, tuple[str, ...]],
    sites: Mapping[str, Site],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[str, ...]]:
    for name, dims in named.items():
        if name not in shapes and name not in sites:
            raise ValueError(
                message(
                    f"to_arviz: event_dims names {name!r}, which is not a site",
                    expected=f"one of {', '.join(shapes)}",
                    remedy="check the spelling",
                )
            )
        site = sites.get(name)
        ndim = len(shapes.get(name, dims)) - (site.batch_ndim if site else 0)
        fits = len(dims) in (ndim, site.core_ndim if site else ndim)
        if name in shapes and not fits:
            raise ValueError(
                message(
                    f"to_arviz: event_dims for {name!r} do not match its shape",
                    expected=f"{ndim} names",
                    got=dims,
                    remedy="name the event's dimensions only; plates give their own names",
                )
            )
    return named


def _attributes() -> dict[str, str]:
    return {
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "creation_library": "numpyro_genprior",
        "creation_library_language": "Python",
        "inference_library": "numpyro",
        "inference_library_version": metadata.version("numpyro"),
    }
