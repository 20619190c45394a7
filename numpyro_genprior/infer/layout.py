"""The layout of a model's latent sites in one flat coordinate array."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from numpyro_genprior.errors import message
from numpyro_genprior.infer.coordinates import CoordinateRule, rule_of
from numpyro_genprior.sites.model_reader import ModelSites, Site, Trace, read_model
from numpyro_genprior.sites.wrappers import unwrap


@dataclass(frozen=True)
class SiteSlice:
    """The part of the flat coordinate array that belongs to one latent site.

    Attributes
    ----------
    name
        Name of the site.
    rule
        How its coordinates are mapped to its value.
    value_shape, shape
        Shape of the value and of the coordinates, plates and steps of a scan included.
    start, stop
        Its range in the flat array.
    """

    name: str
    rule: CoordinateRule
    value_shape: tuple[int, ...]
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.stop - self.start

    def take(self, flat: jax.Array) -> jax.Array:
        """The site's coordinates, of shape ``(..., *shape)``, in a flat array ``(..., size)``."""
        return flat[..., self.start : self.stop].reshape(flat.shape[:-1] + self.shape)


@dataclass(frozen=True)
class Layout:
    """The slices of the latent sites of a model, in model order, and all sites of the model."""

    slices: tuple[SiteSlice, ...]
    sites: ModelSites

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed sites."""
        return self.sites.observed

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.slices[-1].stop if self.slices else 0

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each coordinate: the site's, with an index if it has several."""
        return tuple(
            part.name if part.size == 1 else f"{part.name}[{i}]"
            for part in self.slices
            for i in range(part.size)
        )

    @property
    def not_standard_normal(self) -> tuple[str, ...]:
        """Names of the latent sites without standard normal coordinates."""
        return tuple(part.name for part in self.slices if not part.rule.standard_normal)

    def __getitem__(self, name: str) -> SiteSlice:
        return next(part for part in self.slices if part.name == name)

    def __contains__(self, name: str) -> bool:
        return any(part.name == name for part in self.slices)


def read_layout(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    unconstrained: bool = False,
) -> Layout:
    """Trace a model abstractly and lay out its latent sites.

    Raises
    ------
    ValueError
        If a latent site is discrete, masked or scaled, if a plate is subsampled (each by name), or
        if there is no latent site.
    """
    slices: list[SiteSlice] = []

    def lay_out(sites: ModelSites, trace: Trace) -> None:
        start = 0
        for site in sites.values():
            _refuse_subsampling(site)
            if site.name not in sites.latents:
                continue
            _refuse_unsupported(site)
            fn = trace[site.name]["fn"]
            rule = rule_of(fn, unconstrained=unconstrained)
            shape = rule.shape(unwrap(fn), site.shape)
            stop = start + math.prod(shape)
            slices.append(SiteSlice(site.name, rule, site.shape, shape, start, stop))
            start = stop

    sites = read_model(model, args, kwargs, inspect=lay_out)
    if not slices:
        raise ValueError(
            message(
                "The model has no latent sites",
                expected="at least one sample site without a value",
                remedy="check that the data, and not the unknowns, are passed as obs=",
            )
        )
    return Layout(tuple(slices), sites)


def _refuse_subsampling(site: Site) -> None:
    if site.full_size is not None and site.shape != (site.full_size,):
        raise ValueError(
            message(
                f"Plate {site.name!r} is subsampled",
                expected="all of the data at each evaluation",
                got=f"{site.shape[0]} of {site.full_size}",
                remedy="leave out subsample_size, or use SVI with another guide",
            )
        )


def _refuse_unsupported(site: Site) -> None:
    if site.discrete:
        kind = "" if site.distribution is None else site.distribution.__name__
        raise ValueError(
            message(
                f"Site {site.name!r} is discrete ({kind})",
                expected="continuous latent sites",
                remedy="marginalise it in the likelihood (e.g. MixtureSameFamily), or observe it",
            )
        )
    if site.scaled:
        raise ValueError(
            message(
                f"The log density of latent site {site.name!r} is scaled by a handler",
                expected="latent sites outside of handlers.scale",
                remedy="scale the observed sites only",
            )
        )
    if site.masked:
        raise ValueError(
            message(
                f"Latent site {site.name!r} is masked: where the mask is False it has no prior",
                expected="latent sites without a mask",
                remedy="mask the likelihood only",
            )
        )
