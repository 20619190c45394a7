"""The MCMC moves of SMC: BlackJAX's HMC or random walk, scaled by the particles' covariance."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.smc.state import (
    ParticleState,
    Settings,
    map_particles,
    nan_to_zero_density,
)
from numpyro_genprior.infer.smc.whitening import Whitening

ADAPTATION_RATE = 1.5  # change of the log step size for each unit of excess acceptance
MAX_ACCEPTANCE_ERROR = 0.15  # within a stage the step size changes only beyond this error
JITTER = 0.2  # step sizes are varied by this fraction, to avoid resonance

LogDensity = Callable[[jax.Array], jax.Array]
Initialise = Callable[[jax.Array, LogDensity], PyTree]
Transition = Callable[
    [jax.Array, PyTree, LogDensity, jax.Array, jax.Array], tuple[PyTree, jax.Array]
]
"""From key, state, log density, step size and number of leapfrogs to state and acceptance."""


class Moved(NamedTuple):
    """Particles after their moves, see `Stage`; `log_step` is that for the next stage."""

    xi: jax.Array
    log_step: jax.Array
    acceptance: jax.Array
    num_leapfrogs: jax.Array
    correlation: jax.Array


class _Carry(NamedTuple):
    """State of the moves of a stage; `log_steps` has one entry for each half of the particles."""

    state: PyTree
    key: jax.Array
    log_steps: jax.Array
    acceptance: jax.Array
    num_leapfrogs: jax.Array


def move(
    key: jax.Array,
    posterior: Posterior,
    particles: ParticleState,
    temperature: jax.Array,
    ancestors: jax.Array,
    half: jax.Array,
    roots: jax.Array,
    settings: Settings,
) -> Moved:
    """Move the resampled particles, in coordinates that whiten them.

    The settings of a particle's moves must not depend on its own position. The number of
    moves in a stage therefore follows from the stage before; descendants of one half of the
    particles are scaled by the covariance of the other half; and the step size changes between
    stages, and within one only if it is far off, for one half by the acceptance of the other.
    (Three simpler schemes were tried: step sizes that follow the acceptance of all particles from
    move to move, stopping as soon as the particles have decorrelated, and one covariance for all.
    Each inflated the particles by a percent or two with 512 of them in 20 dimensions, and lost up
    to a nat of evidence.)

    Parameters
    ----------
    key, posterior, particles, temperature
        The particles before resampling, and the temperature to move at.
    ancestors
        Index of each resampled particle's parent among `particles`.
    half
        0 or 1: the half of the particles that each parent belongs to.
    roots
        For each half, the root of the covariance of the other, see `covariance_root`.
    settings
        Static settings.
    """
    whitening = Whitening(roots)

    def log_density(half: jax.Array, white: jax.Array) -> jax.Array:
        log_prior, log_likelihood = posterior.log_terms(whitening.to_xi(half, white))
        return log_prior + temperature * nan_to_zero_density(log_likelihood)

    initialise, transition = _hmc() if settings.moves == "hmc" else _random_walk()
    before = particles.xi[ancestors]
    white = map_particles(whitening.from_xi, settings)(half, before)
    with jax.numpy_rank_promotion("allow"):
        state = map_particles(
            lambda half, white: initialise(white, functools.partial(log_density, half)), settings
        )(half, white)
        carry = _Carry(
            state=state,
            key=key,
            log_steps=jnp.full(2, particles.log_step),
            acceptance=jnp.zeros((), before.dtype),
            num_leapfrogs=jnp.zeros((), int),
        )
        one_move = functools.partial(_one_move, transition, log_density, half, settings)
        carry = jax.lax.fori_loop(0, particles.num_moves, one_move, carry)
    xi = map_particles(whitening.to_xi, settings)(half, carry.state.position)
    return Moved(
        xi=xi,
        log_step=carry.log_steps.mean() + carry.acceptance - settings.target_acceptance,
        acceptance=carry.acceptance,
        num_leapfrogs=carry.num_leapfrogs,
        correlation=_correlation(before, xi),
    )


def _one_move(
    transition: Transition,
    log_density: Callable[[jax.Array, jax.Array], jax.Array],
    half: jax.Array,
    settings: Settings,
    _: int,
    carry: _Carry,
) -> _Carry:
    """One MCMC move of all particles, with an adjustment of step sizes that are far off."""
    log_steps = carry.log_steps
    number, target = settings.num_particles, settings.target_acceptance
    key, jitter_key, length_key, move_key = jax.random.split(carry.key, 4)
    jitter = jax.random.uniform(jitter_key, (number,), log_steps.dtype, -JITTER, JITTER)
    step_sizes = jnp.exp(log_steps)[half] * (1 + jitter)
    # Trajectories of a quarter of a turn, on average.
    length = 0.5 * jnp.pi / jnp.exp(log_steps.mean()) + jax.random.uniform(length_key)
    length = jnp.clip(length, 1, settings.max_leapfrogs).astype(int)

    def move_particle(
        key: jax.Array, state: PyTree, step_size: jax.Array, half: jax.Array
    ) -> tuple[PyTree, jax.Array]:
        density = functools.partial(log_density, half)
        return transition(key, state, density, step_size, length)

    keys = jax.random.split(move_key, number)
    state, acceptance = map_particles(move_particle, settings)(keys, carry.state, step_sizes, half)
    members = jnp.stack([half == 0, half == 1])
    sums, counts = jnp.sum(members * acceptance[None, :], 1), jnp.sum(members, 1)
    error = jnp.where(counts > 0, sums / jnp.maximum(counts, 1) - target, 0)
    change = jnp.where(jnp.abs(error) > MAX_ACCEPTANCE_ERROR, ADAPTATION_RATE * error, 0)
    return _Carry(
        state=state,
        key=key,
        log_steps=(log_steps + change)[::-1],  # each half uses the step size of the other
        acceptance=jnp.mean(acceptance),
        num_leapfrogs=carry.num_leapfrogs + length,
    )


def _correlation(before: jax.Array, after: jax.Array) -> jax.Array:
    """Root mean square correlation over coordinates, minus what is expected by chance."""
    a, b = before - before.mean(0, keepdims=True), after - after.mean(0, keepdims=True)
    norms = jnp.sqrt(jnp.sum(a**2, 0) * jnp.sum(b**2, 0))
    correlation = jnp.where(norms > 0, jnp.sum(a * b, 0) / jnp.where(norms > 0, norms, 1), 1)
    return jnp.sqrt(jnp.maximum(jnp.mean(correlation**2) - 1 / before.shape[0], 0))


def _hmc() -> tuple[Initialise, Transition]:
    from blackjax.mcmc import hmc

    kernel: Any = hmc.build_kernel()

    def transition(
        key: jax.Array,
        state: hmc.HMCState,
        log_density: LogDensity,
        step_size: jax.Array,
        num_leapfrogs: jax.Array,
    ) -> tuple[hmc.HMCState, jax.Array]:
        position: Any = state.position
        inverse_mass = jnp.ones_like(position)
        state, info = kernel(key, state, log_density, step_size, inverse_mass, num_leapfrogs)
        return state, info.acceptance_rate

    return hmc.init, transition


def _random_walk() -> tuple[Initialise, Transition]:
    from blackjax.mcmc import random_walk

    kernel: Any = random_walk.build_additive_step()

    def transition(
        key: jax.Array,
        state: random_walk.RWState,
        log_density: LogDensity,
        step_size: jax.Array,
        num_leapfrogs: jax.Array,
    ) -> tuple[random_walk.RWState, jax.Array]:
        del num_leapfrogs

        def proposal(key: jax.Array, position: jax.Array) -> jax.Array:
            return step_size * jax.random.normal(key, position.shape, position.dtype)

        state, info = kernel(key, state, log_density, proposal)
        return state, info.acceptance_rate

    return random_walk.init, transition
