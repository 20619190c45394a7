"""The events of a model's priors, at given coordinates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from numpyro_genprior.errors import message
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.priors import Prior
from numpyro_genprior.sites.wrappers import unwrap


def event_names(posterior: Posterior) -> tuple[str, ...]:
    """Names of the recorded events of priors, those in model order that no other is made of.

    Raises
    ------
    ValueError
        When there is none.
    """
    outer: tuple[str, ...] = ()

    def run(xi: jax.Array) -> jax.Array:
        nonlocal outer
        outer = events_of(posterior._trace(xi))
        return xi

    jax.eval_shape(run, jnp.zeros(posterior.size))
    if not outer:
        raise ValueError(
            message(
                "The model records no event of a prior",
                expected='a site numpyro.sample("x", prior) under ngp.latent',
                remedy="leave record=True, or give a functional of the sites that there are",
            )
        )
    return outer


def events_of(trace: Any, data: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Events of priors in a trace, those that are observed or named in `data` and the latents of
    others left out.
    """

    def is_event(name: str, site: Any) -> bool:
        if site["type"] == "deterministic":
            return f"{name}_latent" in trace
        if site["type"] != "sample" or site["is_observed"] or name in data:
            return False
        return isinstance(unwrap(site["fn"]), Prior)

    found = [name for name, site in trace.items() if is_event(name, site)]
    return tuple(
        name
        for name in found
        if not name.endswith("_latent") or name.removesuffix("_latent") not in found
    )


def events_at(posterior: Posterior, names: tuple[str, ...], xi: jax.Array) -> dict[str, Any]:
    """The events at flat coordinates."""
    values = posterior.values(xi)
    return {name: values[name] for name in names}
