"""Scalars of a model's sites that a truth and draws are compared by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.diagnostics.calibration.simulation import LOG_LIKELIHOOD, Sites
from numpyro_genprior.errors import message

MAX_LATENTS = 128  # most coordinates of latents, and of an event, that are looked at by default
MAX_PIXELS = 16

Functional = Callable[[Mapping[str, Any]], Any]


class Quantities:
    """Named functions of the sites, as one vector.

    Equal where the functions are, so that a second run needs no second program.

    Attributes
    ----------
    names
        Of the entries of the vector: ``"x_latent[3]"``.
    shapes
        For each function, the shape of its value.
    """

    def __init__(self, functionals: Mapping[str, Functional], sites: Mapping[str, Any]) -> None:
        self.functionals = dict(functionals)
        self.names: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, function in self.functionals.items():
            try:
                value = jax.eval_shape(function, dict(sites))
            except KeyError as error:
                raise ValueError(
                    message(
                        f"Functional {name!r} asks for site {error}, which there is not",
                        expected=f"sites among {sorted(sites)}",
                        remedy="an event is there under ngp.latent with record=True",
                    )
                ) from error
            if not hasattr(value, "shape"):
                raise TypeError(
                    message(
                        f"Functional {name!r} returns no array",
                        got=type(value).__name__,
                        remedy="return a number or an array of a dictionary of sites",
                    )
                )
            self.shapes[name] = value.shape
            own = getattr(function, "labels", None)
            self.names += labels(name, value.shape) if own is None else own

    def __call__(self, sites: Mapping[str, Any]) -> jax.Array:
        parts = [jnp.ravel(f(dict(sites))) for f in self.functionals.values()]
        return jnp.concatenate([jnp.asarray(part, jnp.result_type(float)) for part in parts])

    def __hash__(self) -> int:
        return hash(tuple(self.functionals.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantities) and self.functionals == other.functionals

    def split(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """An array whose last axis is that of the vector, by function and in its shape."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            found[name] = array[..., start:stop].reshape(*array.shape[:-1], *shape)
            start = stop
        return found


def labels(name: str, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(*shape)]


@dataclass(frozen=True)
class Entries:
    """Some entries of one site, by their flat index."""

    site: str
    index: tuple[int, ...]
    labels: tuple[str, ...]

    def __call__(self, sites: Mapping[str, Any]) -> jax.Array:
        return jnp.ravel(sites[self.site])[np.array(self.index)]


@dataclass(frozen=True)
class Whole:
    """All entries of one site, in its shape."""

    site: str

    def __call__(self, sites: Mapping[str, Any]) -> jax.Array:
        return sites[self.site]


@dataclass(frozen=True)
class Moment:
    """Mean or root mean square of one site."""

    site: str
    kind: str

    def __call__(self, sites: Mapping[str, Any]) -> jax.Array:
        value = sites[self.site]
        return jnp.mean(value) if self.kind == "mean" else jnp.sqrt(jnp.mean(value**2))


def latent_entries(sites: Sites) -> dict[str, Functional]:
    """Every coordinate of the latents; where they are many, some of them, evenly spaced."""
    sizes = {name: math.prod(sites.shapes[name]) for name in sites.latents}
    share = min(1.0, MAX_LATENTS / max(1, sum(sizes.values())))
    return {name: _entries(name, sites, max(1, round(share * sizes[name]))) for name in sizes}


def event_entries(sites: Sites, name: str, most: int) -> dict[str, Functional]:
    """Mean and root mean square of an event, and `most` of its entries."""
    return {
        f"mean({name})": Moment(name, "mean"),
        f"rms({name})": Moment(name, "rms"),
        name: _entries(name, sites, most),
    }


def default_quantities(
    sites: Sites, functionals: Mapping[str, Functional] | None
) -> dict[str, Functional]:
    """Latents, moments and some entries of events (or the user's functions), log likelihood."""
    events: dict[str, Functional] = dict(functionals or {})
    if functionals is None:
        for name in sites.events:
            events |= event_entries(sites, name, MAX_PIXELS)
    # An event of an exact prior is a latent itself, with all of its entries.
    return {**events, **latent_entries(sites), LOG_LIKELIHOOD: Whole(LOG_LIKELIHOOD)}


def _entries(name: str, sites: Sites, most: int) -> Functional:
    shape = sites.shapes[name]
    size = math.prod(shape)
    if size <= most:
        return Whole(name)
    index = np.linspace(0, size - 1, most).round().astype(int)
    where = np.stack(np.unravel_index(index, shape), axis=-1)
    names = [f"{name}[{', '.join(map(str, row))}]" for row in where.tolist()]
    return Entries(name, tuple(index.tolist()), tuple(names))
