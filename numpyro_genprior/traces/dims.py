"""Names of dimensions, and xarray datasets that carry them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.sites.model_reader import Site

IMAGE_DIMS = ("row", "col")


class Labels:
    """How the dimensions of sites are called.

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
        event_dims: Any,
        coords: Mapping[str, Any] | None,
    ) -> None:
        self.sites = sites
        self.coords = {dim: np.asarray(values) for dim, values in (coords or {}).items()}
        self._named = _by_site(sites, shapes, event_dims)
        self.dims = {name: self._dims(name, shape) for name, shape in shapes.items()}
        if event_dims is None:
            self._tell_apart(shapes)
        self._check(shapes)

    def _dims(self, name: str, shape: tuple[int, ...]) -> list[str]:
        site = self.sites.get(name)
        names: list[str | None] = [None] * len(shape)
        batch = min(site.batch_ndim, len(shape)) if site else 0
        for plate, dim, size in site.plates if site else ():
            place = batch + dim
            if 0 <= place < batch and shape[place] == size:
                names[place] = plate
        chosen = self._named.get(name, site.event_dims if site else ())
        if 0 < len(chosen) <= len(shape):
            names[len(shape) - len(chosen) :] = chosen
        elif site and site.role == "latent" and site.core_ndim == 1:
            names[-1] = f"{name}_dim"
        return [dim or f"{name}_dim_{i}" for i, dim in enumerate(names)]

    def _tell_apart(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Events of different sizes cannot share rows: by default each gets its own."""
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
        seen: dict[str, tuple[str, int]] = {}
        for name, shape in shapes.items():
            dims = self.dims[name]
            if len({"chain", "draw", *dims}) < len(dims) + 2:
                raise ValueError(
                    message(
                        f"to_arviz: the dimensions of {name!r} are not told apart",
                        expected="different names, other than chain and draw",
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
                            f"to_arviz: coords[{dim!r}] does not fit {name!r}",
                            expected=f"{size} values",
                            got=len(self.coords[dim]),
                            remedy="give one coordinate for each entry of the dimension",
                        )
                    )

    def dataset(
        self, variables: Mapping[str, Any], lead: tuple[str, ...] = (), only_batch: bool = False
    ) -> Any:
        """An `xarray.Dataset` of variables with leading dimensions `lead`.

        With `only_batch` they have no event dimensions (log likelihoods).
        """
        import xarray as xr

        arrays, coords = {}, {}
        for name, values in variables.items():
            array = np.asarray(values)
            shape = array.shape[len(lead) :]
            dims = self.dims.get(name, [])
            dims = dims[: len(shape)] if only_batch else dims
            if len(dims) != len(shape):  # no site of the posterior, or of another shape there
                dims = self._dims(name, shape)
            arrays[name] = ((*lead, *dims), array)
            for dim, size in zip((*lead, *dims), array.shape, strict=True):
                given = self.coords.get(dim)
                fits = given is not None and len(given) == size
                coords[dim] = given if fits else np.arange(size)
        return xr.Dataset(arrays, coords=coords, attrs=_attributes())


def _by_site(
    sites: Mapping[str, Site], shapes: Mapping[str, tuple[int, ...]], event_dims: Any
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
                f"to_arviz: event_dims={pattern} names {len(pattern)} dimensions, and no event has "
                "as many",
                expected=", ".join(f"{n} for {name!r}" for name, (_, n) in ndims.items()),
                got=len(pattern),
                remedy="name them site by site, event_dims={'x': (...)}",
            )
        )
    return {name: pattern for name, ndim in ndims.items() if len(pattern) in ndim}


def _names(dims: str | Iterable[str]) -> tuple[str, ...]:
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
                    f"to_arviz: event_dims for {name!r} do not fit",
                    expected=f"{ndim} names",
                    got=dims,
                    remedy="name the event's dimensions only; plates give their own names",
                )
            )
    return named


def _attributes() -> dict[str, Any]:
    return {
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "creation_library": "numpyro_genprior",
        "creation_library_language": "Python",
        "inference_library": "numpyro",
        "inference_library_version": metadata.version("numpyro"),
    }
