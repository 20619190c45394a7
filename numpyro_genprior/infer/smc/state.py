"""Particles between two stages of SMC, and the statistics of a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from numpyro_genprior.infer.posterior import Posterior


@dataclass(frozen=True)
class Settings:
    """Static settings of a stage, see `numpyro_genprior.infer.SMC`."""

    num_particles: int
    moves: str
    target_ess: float
    max_moves: int
    correlation: float
    max_leapfrogs: int
    batch_size: int | None

    @property
    def target_acceptance(self) -> float:
        """Mean acceptance probability that the step size is adapted to."""
        return 0.8 if self.moves == "hmc" else 0.25


class ParticleState(NamedTuple):
    """Particles between two stages, all of equal weight.

    Attributes
    ----------
    xi, log_likelihood
        Coordinates ``(particles, size)``, and the log likelihood of each.
    temperature
        Exponent β of the likelihood in the density that the particles represent.
    log_step, num_moves
        Log step size and number of the moves of the next stage.
    eves
        Index of each particle's ancestor among the draws from the prior.
    """

    xi: jax.Array
    log_likelihood: jax.Array
    temperature: jax.Array
    log_step: jax.Array
    num_moves: jax.Array
    eves: jax.Array


class Stage(NamedTuple):
    """Statistics of one stage.

    Attributes
    ----------
    temperature
        Exponent β of the likelihood after the stage.
    log_increment
        Log of the mean incremental weight, the factor that this stage adds to the evidence.
    effective_sample_size
        Of the weights, before resampling.
    collision
        Probability that two particles drawn by weight have the same ancestor in the prior.
    acceptance
        Mean acceptance probability of the last move.
    num_moves, num_leapfrogs
        Number of moves of each particle, and leapfrog steps of all of these together.
    correlation
        Root mean square, over coordinates, of the correlation between the particles before and
        after the moves, minus what is expected by chance.
    """

    temperature: jax.Array
    log_increment: jax.Array
    effective_sample_size: jax.Array
    collision: jax.Array
    acceptance: jax.Array
    num_moves: jax.Array
    num_leapfrogs: jax.Array
    correlation: jax.Array


def map_particles(function: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    """Map a function over particles, all at once or in batches."""
    if settings.batch_size is None:
        return jax.vmap(function)

    def mapped(*arrays: jax.Array) -> Any:
        return jax.lax.map(lambda each: function(*each), arrays, batch_size=settings.batch_size)

    return mapped


def log_likelihood(posterior: Posterior, xi: jax.Array) -> jax.Array:
    """The log likelihood, -∞ in place of NaN."""
    return nan_to_zero_density(posterior.log_likelihood(xi))


def nan_to_zero_density(log_density: jax.Array) -> jax.Array:
    """-∞ in place of NaN."""
    return jnp.where(jnp.isnan(log_density), -jnp.inf, log_density)
