"""Starting points of minimisations: prior draws, and encodings of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.priors import Prior


def draw_starts(posterior: Posterior, key: PRNGKeyArray, num_starts: int) -> tuple[jax.Array, int]:
    """Coordinates of `num_starts` starts, and how many of them are encodings.

    Starts are prior draws. In the first ones, an encoder's output for the data replaces a latent.
    That is possible if the data have the shape of an event: for a prior with an encoder among the
    model's arguments, an observed site of the shape of its event, and a latent of an event.
    """
    starts = jax.vmap(posterior.draw)(jax.random.split(key, num_starts))
    encodings = _encodings(posterior, starts[0])[:num_starts]
    for i, encoding in enumerate(encodings):
        starts = starts.at[i].set(encoding)
    return starts, len(encodings)


def _encodings(posterior: Posterior, xi: Float[Array, " latent"]) -> list[jax.Array]:
    """`xi` with a latent replaced by the encoding of the data, for each prior that allows it."""
    priors = jax.tree.leaves(posterior.arguments, is_leaf=lambda node: isinstance(node, Prior))
    priors = [
        p for p in priors if isinstance(p, Prior) and p.encoder is not None and not p.batch_shape
    ]
    if not priors:
        return []
    trace = posterior.trace(xi)
    encodings = []
    for prior in priors:
        data = _data_like(prior, posterior, trace)
        latents = [
            part.name
            for part in posterior.layout.slices
            if posterior.sites[part.name].role == "latent"
            and part.value_shape == prior.latent.event_shape
        ]
        if data is None or not latents:
            continue
        values = {p.name: trace[p.name]["value"] for p in posterior.layout.slices}
        values[latents[0]] = prior.encode(data)[0]
        encodings.append(posterior.coordinates(values))
    return encodings


def _data_like(prior: Prior, posterior: Posterior, trace: Mapping[str, Any]) -> jax.Array | None:
    """The first observed value of the event shape of `prior`, or None."""
    for name in posterior.layout.observed:
        value = jnp.asarray(trace[name]["value"])
        if value.shape == prior.event_shape:
            return value.astype(prior.event_dtype)
    return None
