"""The events of a model's priors, at given coordinates."""

from __future__ import annotations

import jax

from numpyro_genprior.errors import message
from numpyro_genprior.infer.posterior import Posterior


def event_names(posterior: Posterior) -> tuple[str, ...]:
    """Names of the recorded events of priors, in model order, nested ones left out.

    Raises
    ------
    ValueError
        If there is none.
    """
    names = posterior.sites.events()
    if not names:
        raise ValueError(
            message(
                "The model records no event of a prior",
                expected='a site numpyro.sample("x", prior) under ngp.latent',
                remedy="leave record=True, or give a functional of the recorded sites",
            )
        )
    return names


def events_at(posterior: Posterior, names: tuple[str, ...], xi: jax.Array) -> dict[str, jax.Array]:
    """The events at flat coordinates."""
    values = posterior.values(xi)
    return {name: values[name] for name in names}
