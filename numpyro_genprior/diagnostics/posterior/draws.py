"""Draws of an MCMC run in flat coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from numpyro.infer import MCMC

from numpyro_genprior.errors import message
from numpyro_genprior.infer.posterior import Posterior


def coordinates_of_run(
    mcmc: MCMC, name: str, *, num_draws: int | None = None
) -> tuple[Posterior, jax.Array]:
    """The posterior of a run, and its draws in coordinates, of shape ``(chains, draws, size)``.

    Parameters
    ----------
    mcmc
        A NumPyro `MCMC` after ``run``.
    name
        Name of the diagnostic, for messages.
    num_draws
        Maximum number of draws of each chain, evenly spaced; None for all.

    Raises
    ------
    TypeError
        If `mcmc` is not an `MCMC`, or its kernel has no model.
    ValueError
        If it has not run, has too few draws, or did not keep the draws of a latent site.
    """
    model = _model(mcmc, name)
    draws = _draws(mcmc, name, num_draws)
    posterior = Posterior(model, mcmc._args, mcmc._kwargs)
    latents = [site_slice.name for site_slice in posterior.layout.slices]
    kept = {name: draws[name] for name in latents if name in draws}
    return posterior, _coordinates(posterior, kept)


def _model(mcmc: MCMC, name: str) -> Callable[..., Any]:
    if not isinstance(mcmc, MCMC):
        raise TypeError(
            message(
                f"{name} needs an MCMC run",
                expected="a numpyro.infer.MCMC",
                got=type(mcmc).__name__,
                remedy="pass the MCMC object itself, not its draws",
            )
        )
    model = getattr(mcmc.sampler, "model", None)
    if model is None:
        raise TypeError(
            message(
                f"{name}: the kernel {type(mcmc.sampler).__name__} has no model",
                expected="a kernel of a NumPyro model",
                got="one of a potential function, or of several models",
                remedy="build it from the model, NUTS(model)",
            )
        )
    return model


def _draws(mcmc: MCMC, name: str, num_draws: int | None) -> dict[str, jax.Array]:
    if mcmc._states is None:
        raise ValueError(
            message(f"{name}: this MCMC has not run", remedy="call mcmc.run(key, ...) first")
        )
    draws: Any = mcmc.get_samples(group_by_chain=True)
    number = next(iter(draws.values())).shape[1]
    number_kept = number if num_draws is None else min(number, num_draws)
    if number_kept < 4:
        raise ValueError(
            message(
                f"{name}: too few draws",
                expected="at least 4 of each chain",
                got=number_kept,
                remedy="raise num_samples of MCMC, or num_draws",
            )
        )
    rows = np.linspace(0, number - 1, number_kept).round().astype(int)
    return {site: value[:, rows] for site, value in draws.items()}


@eqx.filter_jit
def _coordinates(posterior: Posterior, draws: dict[str, jax.Array]) -> jax.Array:
    return jax.vmap(lambda chain: jax.lax.map(posterior.coordinates, chain))(draws)
