"""Scalar functions of a model's sites, by which truths and draws are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from numpyro_genprior.diagnostics.calibration.simulation import LOG_LIKELIHOOD, Sites
from numpyro_genprior.errors import message

MAX_LATENTS = 128  # coordinates of latents that are ranked by default
MAX_PIXELS = 16  # entries of an event that are ranked by default

SiteValues = Mapping[str, jax.Array]
Functional = Callable[[SiteValues], jax.Array]


class Quantities:
    """Named functions of the sites, evaluated as one vector.

    Two are equal if their functions are, so that a second run needs no second compilation.

    Parameters
    ----------
    functionals
        The functions by name.
    sites
        Values or shapes of all sites.

    Attributes
    ----------
    names
        Names of the entries of the vector, such as ``"x_latent[3]"``.
    shapes
        For each function, the shape of its value.

    Raises
    ------
    TypeError
        If a function does not return an array.
    ValueError
        If a function asks for a site that does not exist.
    """

    def __init__(
        self,
        functionals: Mapping[str, Functional],
        sites: Mapping[str, jax.Array | jax.ShapeDtypeStruct],
    ) -> None:
        self.functionals = dict(functionals)
        self.names: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, function in self.functionals.items():
            try:
                value = jax.eval_shape(function, dict(sites))
            except KeyError as error:
                raise ValueError(
                    message(
                        f"Functional {name!r} asks for site {error}, which does not exist",
                        expected=f"sites among {sorted(sites)}",
                        remedy="events are recorded under ngp.latent with record=True",
                    )
                ) from error
            if not hasattr(value, "shape"):
                raise TypeError(
                    message(
                        f"Functional {name!r} does not return an array",
                        got=type(value).__name__,
                        remedy="return a number or an array of a dictionary of sites",
                    )
                )
            self.shapes[name] = value.shape
            labels = getattr(function, "labels", None)
            self.names += entry_names(name, value.shape) if labels is None else labels

    def __call__(self, sites: SiteValues) -> jax.Array:
        parts = [jnp.ravel(f(dict(sites))) for f in self.functionals.values()]
        return jnp.concatenate([jnp.asarray(part, jnp.result_type(float)) for part in parts])

    def __hash__(self) -> int:
        return hash(tuple(self.functionals.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantities) and self.functionals == other.functionals

    def split(self, array: Float[np.ndarray, "*batch quantities"]) -> dict[str, np.ndarray]:
        """Split an array whose last axis is that of the vector into one array per function."""
        arrays, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            arrays[name] = array[..., start:stop].reshape(*array.shape[:-1], *shape)
            start = stop
        return arrays


def entry_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Names of all entries of an array: ``"x[0, 1]"``; the name itself for a scalar."""
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(*shape)]


@dataclass(frozen=True)
class SomeEntries:
    """Some entries of one site, by their flat index."""

    site: str
    index: tuple[int, ...]
    labels: tuple[str, ...]

    def __call__(self, sites: SiteValues) -> jax.Array:
        return jnp.ravel(sites[self.site])[np.array(self.index)]


@dataclass(frozen=True)
class AllEntries:
    """All entries of one site, in its shape."""

    site: str

    def __call__(self, sites: SiteValues) -> jax.Array:
        return sites[self.site]


@dataclass(frozen=True)
class Moment:
    """Mean or root mean square of the entries of one site."""

    site: str
    kind: Literal["mean", "rms"]

    def __call__(self, sites: SiteValues) -> jax.Array:
        value = sites[self.site]
        return jnp.mean(value) if self.kind == "mean" else jnp.sqrt(jnp.mean(value**2))


def latent_entries(sites: Sites) -> dict[str, Functional]:
    """All coordinates of the latents, or 128 of them, evenly spaced, if there are more."""
    sizes = {name: math.prod(sites.shapes[name]) for name in sites.latents}
    share = min(1.0, MAX_LATENTS / max(1, sum(sizes.values())))
    return {name: _entries(name, sites, max(1, round(share * sizes[name]))) for name in sizes}


def event_entries(sites: Sites, name: str, max_entries: int) -> dict[str, Functional]:
    """Mean and root mean square of an event, and at most `max_entries` of its entries."""
    return {
        f"mean({name})": Moment(name, "mean"),
        f"rms({name})": Moment(name, "rms"),
        name: _entries(name, sites, max_entries),
    }


def default_quantities(
    sites: Sites, functionals: Mapping[str, Functional] | None
) -> dict[str, Functional]:
    """The user's functions or moments and entries of events; latents; the log likelihood."""
    events: dict[str, Functional] = dict(functionals or {})
    if functionals is None:
        for name in sites.events:
            events |= event_entries(sites, name, MAX_PIXELS)
    # The event of an exact prior is a latent itself: its entries there replace those here.
    return {**events, **latent_entries(sites), LOG_LIKELIHOOD: AllEntries(LOG_LIKELIHOOD)}


def _entries(name: str, sites: Sites, max_entries: int) -> Functional:
    shape = sites.shapes[name]
    size = math.prod(shape)
    if size <= max_entries:
        return AllEntries(name)
    index = np.linspace(0, size - 1, max_entries).round().astype(int)
    where = np.stack(np.unravel_index(index, shape), axis=-1)
    names = [f"{name}[{', '.join(map(str, row))}]" for row in where.tolist()]
    return SomeEntries(name, tuple(index.tolist()), tuple(names))
