"""One stage of sequential Monte Carlo: temper, reweight, resample, move. Pure, of fixed sizes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.smc.moves import move
from numpyro_genprior.infer.smc.state import (
    ParticleState,
    Settings,
    Stage,
    log_likelihood,
    map_particles,
)
from numpyro_genprior.infer.smc.whitening import covariance_root

MIN_MOVES = 2


@functools.partial(jax.jit, static_argnames="settings")
def initial_particles(key: jax.Array, posterior: Posterior, settings: Settings) -> ParticleState:
    """Exact draws from the prior."""
    number, size = settings.num_particles, posterior.size
    is_hmc = settings.moves == "hmc"
    xi = map_particles(posterior.draw, settings)(jax.random.split(key, number))
    step_size = 1.2 * size**-0.25 if is_hmc else 2.38 * size**-0.5
    num_moves = MIN_MOVES + 1 if is_hmc else max(10, 2 * size)
    return ParticleState(
        xi=xi,
        log_likelihood=map_particles(functools.partial(log_likelihood, posterior), settings)(xi),
        temperature=jnp.zeros((), xi.dtype),
        log_step=jnp.log(jnp.asarray(step_size, xi.dtype)),
        num_moves=jnp.asarray(min(num_moves, settings.max_moves)),
        eves=jnp.arange(number),
    )


@functools.partial(jax.jit, static_argnames="settings")
def advance(
    key: jax.Array,
    posterior: Posterior,
    particles: ParticleState,
    is_last: jax.Array,
    settings: Settings,
) -> tuple[ParticleState, Stage]:
    """Advance to the next temperature; to β = 1 if `is_last` is True.

    The steps of the algorithm of Del Moral, Doucet & Jasra (2006), section 3.1, with a stage's
    MCMC kernel as its mutation and resampling in every stage.
    """
    from blackjax.smc.resampling import multinomial

    resample_key, move_key = jax.random.split(key)
    number = settings.num_particles
    # Choose the next temperature adaptively.
    temperature, increment = _next_temperature(particles, is_last, settings)

    # Reweight: with this mutation the incremental weights are L(ξ)^(βₙ - βₙ₋₁).
    log_weights = increment * particles.log_likelihood
    log_total = jax.nn.logsumexp(log_weights)
    weights = jnp.exp(log_weights - log_total)
    weights_of_eves = jax.ops.segment_sum(weights, particles.eves, num_segments=number)

    # Resample.
    with jax.numpy_rank_promotion("allow"):
        ancestors = multinomial(resample_key, weights, number)

    # Move, with an MCMC kernel that leaves the tempered posterior invariant.
    half = jnp.arange(number) % 2
    roots = jnp.stack(
        [covariance_root(particles.xi, weights * (half != h), settings) for h in (0, 1)]
    )
    moved = move(
        move_key,
        posterior,
        particles,
        temperature,
        ancestors,
        half[ancestors],
        roots,
        settings,
    )
    log_likelihoods = map_particles(functools.partial(log_likelihood, posterior), settings)(
        moved.xi
    )
    stage = Stage(
        temperature=temperature,
        log_increment=log_total - jnp.log(number),
        effective_sample_size=1 / jnp.sum(weights**2),
        collision=jnp.sum(weights_of_eves**2),
        acceptance=moved.acceptance,
        num_moves=particles.num_moves,
        num_leapfrogs=moved.num_leapfrogs,
        correlation=moved.correlation,
    )
    num_moves = _next_num_moves(stage, settings)
    eves = particles.eves[ancestors]
    return (
        ParticleState(moved.xi, log_likelihoods, temperature, moved.log_step, num_moves, eves),
        stage,
    )


def _next_temperature(
    particles: ParticleState, is_last: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
    """The next temperature, at which the weights have the target ESS, and its increment.

    Particles of zero likelihood are lost in any case: the target is a fraction of the others.
    """
    from blackjax.smc import ess, solver

    remaining = 1 - particles.temperature
    fraction = jnp.mean(jnp.isfinite(particles.log_likelihood))
    increment = ess.ess_solver(
        lambda values: values,
        particles.log_likelihood,
        settings.target_ess * fraction,
        remaining,
        solver.dichotomy,
    )
    is_last = is_last | (increment >= remaining)
    increment = jnp.where(is_last, remaining, increment)
    return jnp.where(is_last, 1.0, particles.temperature + increment), increment


def _next_num_moves(stage: Stage, settings: Settings) -> jax.Array:
    """The number of moves with which this stage would have had the target correlation.

    The correlation is taken to fall geometrically with the number of moves.
    """
    correlation = jnp.clip(stage.correlation, 1 / settings.num_particles, 0.999)
    number = stage.num_moves * jnp.log(settings.correlation) / jnp.log(correlation)
    minimum = min(MIN_MOVES, settings.max_moves)
    return jnp.clip(jnp.ceil(number), minimum, settings.max_moves).astype(int)
