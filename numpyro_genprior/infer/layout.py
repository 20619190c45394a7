"""Where each latent site of a model lies in one flat coordinate array."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from numpyro_genprior.errors import message
from numpyro_genprior.infer.coordinates import CoordinateRule, rule_of
from numpyro_genprior.sites.wrappers import unwrap


@dataclass(frozen=True)
class SiteSlice:
    """One latent site.

    Attributes
    ----------
    name
        Name of the site.
    rule
        How its coordinates become its value.
    value_shape, shape
        Shape of the value and of the coordinates, plates and steps of a scan included.
    start, stop
        Its part of the flat array.
    """

    name: str
    rule: CoordinateRule
    value_shape: tuple[int, ...]
    shape: tuple[int, ...]
    start: int
    stop: int

    def take(self, flat: jax.Array) -> jax.Array:
        return flat[..., self.start : self.stop].reshape(flat.shape[:-1] + self.shape)


@dataclass(frozen=True)
class Layout:
    """The latent sites of a model in their order, and the observed ones by name."""

    places: tuple[SiteSlice, ...]
    observed: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.places[-1].stop if self.places else 0

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each coordinate: the site's, with an index where it has several."""
        return tuple(
            place.name if place.stop - place.start == 1 else f"{place.name}[{i}]"
            for place in self.places
            for i in range(place.stop - place.start)
        )

    def __getitem__(self, name: str) -> SiteSlice:
        return next(place for place in self.places if place.name == name)

    def __contains__(self, name: str) -> bool:
        return any(place.name == name for place in self.places)


def read_layout(
    model: Callable[..., Any], args: Any, kwargs: Any, *, unconstrained: bool = False
) -> Layout:
    """Trace a model abstractly and lay its latent sites out.

    Raises
    ------
    ValueError
        For a site that has no coordinates: discrete, masked, scaled or subsampled, by name; or
        when there is none at all, or nothing observed.
    """
    places: list[SiteSlice] = []
    observed: list[str] = []

    def read(args: Any, kwargs: Any) -> None:
        seeded = numpyro.handlers.seed(model, 0)
        started = numpyro.handlers.substitute(seeded, substitute_fn=_anything)
        with numpyro.handlers.block():
            trace = numpyro.handlers.trace(started).get_trace(*args, **kwargs)
        start = 0
        for name, site in trace.items():
            if site["type"] == "plate":
                _refuse_subsampling(name, site)
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                observed.append(name)
                continue
            _refuse(name, site)
            rule, core = rule_of(site["fn"], unconstrained=unconstrained), unwrap(site["fn"])
            value_shape = jnp.shape(site["value"])
            shape = rule.shape(core, value_shape)
            stop = start + math.prod(shape)
            places.append(SiteSlice(name, rule, value_shape, shape, start, stop))
            start = stop

    eqx.filter_eval_shape(read, args, kwargs)  # only shapes: no value is ever looked at
    if not places:
        raise ValueError(
            message(
                "The model has no latent sites",
                expected="at least one sample site without a value",
                remedy="check that the data, and not the unknowns, are passed as obs=",
            )
        )
    return Layout(tuple(places), tuple(observed))


def _anything(site: Any) -> Any:
    """A value of a latent site's shape."""
    if site["type"] != "sample" or site["is_observed"]:
        return None
    return jnp.zeros(site["kwargs"]["sample_shape"] + site["fn"].shape())


def _refuse_subsampling(name: str, site: Any) -> None:
    size, subsample_size = site["args"]
    if subsample_size is not None and subsample_size != size:
        raise ValueError(
            message(
                f"Plate {name!r} is subsampled",
                expected="all of the data at each evaluation",
                got=f"{subsample_size} of {size}",
                remedy="leave out subsample_size, or use SVI with another guide",
            )
        )


def _refuse(name: str, site: Any) -> None:
    fn = site["fn"]
    if fn.support is not None and getattr(fn.support, "is_discrete", False):
        raise ValueError(
            message(
                f"Site {name!r} is discrete ({type(unwrap(fn)).__name__})",
                expected="continuous latent sites",
                remedy="marginalise it in the likelihood (e.g. MixtureSameFamily), or observe it",
            )
        )
    if site["scale"] is not None:
        raise ValueError(
            message(
                f"The log density of latent site {name!r} is scaled by a handler",
                expected="latent sites outside of handlers.scale",
                remedy="scale the observed sites only",
            )
        )
    if _masked(fn):
        raise ValueError(
            message(
                f"Latent site {name!r} is masked: where the mask is False it has no prior",
                expected="latent sites without a mask",
                remedy="mask the likelihood only",
            )
        )


def _masked(fn: Any) -> bool:
    while isinstance(fn, (dist.ExpandedDistribution, dist.Independent, dist.MaskedDistribution)):
        if isinstance(fn, dist.MaskedDistribution) and fn._mask is not True:
            return True
        fn = fn.base_dist
    return False
