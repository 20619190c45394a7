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
    found: list[str] = []

    def run(xi: jax.Array) -> jax.Array:
        trace = posterior._trace(xi)
        for name, site in trace.items():
            made = site["type"] == "deterministic" and f"{name}_latent" in trace
            law = site["type"] == "sample" and isinstance(unwrap(site["fn"]), Prior)
            if (made or law) and not site.get("is_observed", False):
                found.append(name)
        return xi

    jax.eval_shape(run, jnp.zeros(posterior.size))
    outer = [name for name in found if name.removesuffix("_latent") == name or
             name.removesuffix("_latent") not in found]  # fmt: skip
    if not outer:
        raise ValueError(
            message(
                "The model records no event of a prior",
                expected='a site numpyro.sample("x", prior) under ngp.latent',
                remedy="leave record=True, or give a functional of the sites that there are",
            )
        )
    return tuple(outer)


def events_at(posterior: Posterior, names: tuple[str, ...], xi: jax.Array) -> dict[str, Any]:
    """The events at flat coordinates."""
    values = posterior.values(xi)
    return {name: values[name] for name in names}
