"""One temperature of sequential Monte Carlo: reweight, resample, move. Pure, of fixed sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from numpyro_genprior.infer.linalg.limits import MAX_DENSE_PARTICLE_COVARIANCE
from numpyro_genprior.infer.posterior import Posterior

SHRINKAGE = 1e-3  # of the particles' correlations, so that the matrix keeps its Cholesky factor

LEAST_MOVES = 2
GAIN = 1.5  # of the logarithm of the step size, by acceptance
TOLERANCE = 0.15  # of the acceptance: the step size changes within a stage only beyond
JITTER = 0.2  # step sizes are spread by this fraction, against resonance


@dataclass(frozen=True)
class Settings:
    """What a stage compiles for; see `numpyro_genprior.infer.SMC`."""

    num_particles: int
    moves: str
    target_ess: float
    max_moves: int
    correlation: float
    max_leapfrogs: int
    batch_size: int | None

    @property
    def target_acceptance(self) -> float:
        return 0.8 if self.moves == "hmc" else 0.25


class ParticleState(NamedTuple):
    """Particles between two stages, all of equal weight.

    Attributes
    ----------
    xi, log_likelihood
        Coordinates ``(particles, size)``, and the log likelihood of each.
    temperature
        Exponent of the likelihood that the particles are drawn to.
    log_step, num_moves
        Logarithm of the step size, and number, of the moves of the next stage.
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
    """What happened in one stage.

    Attributes
    ----------
    temperature
        Exponent of the likelihood at the end.
    log_increment
        Log of the mean weight: this stage's factor of the evidence.
    effective_sample_size
        Of the weights, before they are resampled.
    collision
        Probability that two weighted particles have one ancestor in the prior.
    acceptance
        Mean acceptance probability of the last move.
    num_moves, num_leapfrogs
        Moves of each particle, and their leapfrog steps together.
    correlation
        Root mean square, over coordinates, of the correlation between the particles before and
        after the moves (without the part that chance explains).
    """

    temperature: jax.Array
    log_increment: jax.Array
    effective_sample_size: jax.Array
    collision: jax.Array
    acceptance: jax.Array
    num_moves: jax.Array
    num_leapfrogs: jax.Array
    correlation: jax.Array


@functools.partial(jax.jit, static_argnames="settings")
def start(key: jax.Array, posterior: Posterior, settings: Settings) -> ParticleState:
    """Exact draws from the prior."""
    number, size = settings.num_particles, posterior.size
    xi = over(posterior.draw, settings)(jax.random.split(key, number))
    first_step = 1.2 * size**-0.25 if settings.moves == "hmc" else 2.38 * size**-0.5
    log_likelihood = over(functools.partial(finite, posterior), settings)(xi)
    log_step = jnp.log(jnp.asarray(first_step, xi.dtype))
    first_moves = LEAST_MOVES + 1 if settings.moves == "hmc" else max(10, 2 * size)
    num_moves = jnp.asarray(min(first_moves, settings.max_moves))
    zero = jnp.zeros((), xi.dtype)
    return ParticleState(xi, log_likelihood, zero, log_step, num_moves, jnp.arange(number))


@functools.partial(jax.jit, static_argnames="settings")
def advance(
    key: jax.Array, posterior: Posterior, cloud: ParticleState, last: jax.Array, settings: Settings
) -> tuple[ParticleState, Stage]:
    """Go to the next temperature, or to one at once when `last` is True."""
    from blackjax.smc.resampling import multinomial

    resample_key, move_key = jax.random.split(key)
    number = settings.num_particles
    temperature, increment = _next(cloud, last, settings)
    log_weights = increment * cloud.log_likelihood
    total = jax.nn.logsumexp(log_weights)
    weights = jnp.exp(log_weights - total)
    shares = jax.ops.segment_sum(weights, cloud.eves, num_segments=number)

    with jax.numpy_rank_promotion("allow"):
        chosen = multinomial(resample_key, weights, number)
    half = jnp.arange(number) % 2
    roots = jnp.stack([_root(cloud.xi, weights * (half != h), settings) for h in (0, 1)])
    xi, log_step, moved = _move(
        move_key, posterior, cloud, temperature, chosen, half[chosen], roots, settings
    )
    log_likelihood = over(functools.partial(finite, posterior), settings)(xi)
    stage = Stage(
        temperature=temperature,
        log_increment=total - jnp.log(number),
        effective_sample_size=1 / jnp.sum(weights**2),
        collision=jnp.sum(shares**2),
        **moved,
    )
    num_moves = _enough(stage, settings)
    eves = cloud.eves[chosen]
    return ParticleState(xi, log_likelihood, temperature, log_step, num_moves, eves), stage


def over(function: Callable[..., Any], settings: Settings) -> Callable[..., Any]:
    """Map a function over particles, all at once or in batches."""
    if settings.batch_size is None:
        return jax.vmap(function)

    def mapped(*arrays: Any) -> Any:
        return jax.lax.map(lambda each: function(*each), arrays, batch_size=settings.batch_size)

    return mapped


def finite(posterior: Posterior, xi: jax.Array) -> jax.Array:
    """The log likelihood, minus infinity where the model gives no number."""
    value = posterior.log_likelihood(xi)
    return jnp.where(jnp.isnan(value), -jnp.inf, value)


def _next(cloud: ParticleState, last: jax.Array, settings: Settings) -> tuple[jax.Array, jax.Array]:
    """The next temperature and its increment: weights then have the effective size wanted.

    Particles that cannot have made the data count as lost beforehand: of the others, the
    wanted fraction is kept.
    """
    from blackjax.smc import ess, solver

    remaining = 1 - cloud.temperature
    alive = jnp.mean(jnp.isfinite(cloud.log_likelihood))
    increment = ess.ess_solver(
        lambda values: values,
        cloud.log_likelihood,
        settings.target_ess * alive,
        remaining,
        solver.dichotomy,
    )
    done = last | (increment >= remaining)
    increment = jnp.where(done, remaining, increment)
    return jnp.where(done, 1.0, cloud.temperature + increment), increment


def _enough(stage: Stage, settings: Settings) -> jax.Array:
    """Moves for the next stage: with as many, this one's correlation were as wanted."""
    correlation = jnp.clip(stage.correlation, 1 / settings.num_particles, 0.999)
    wanted = stage.num_moves * jnp.log(settings.correlation) / jnp.log(correlation)
    return jnp.clip(
        jnp.ceil(wanted), min(LEAST_MOVES, settings.max_moves), settings.max_moves
    ).astype(int)


def _root(xi: jax.Array, weights: jax.Array, settings: Settings) -> jax.Array:
    """Cholesky factor of the weighted particles' covariance, or its diagonal where they are few."""
    size = xi.shape[1]
    weights = weights / jnp.maximum(jnp.sum(weights), jnp.finfo(xi.dtype).tiny)
    centred = xi - (weights @ xi)[None, :]
    variance = weights @ centred**2
    variance = jnp.where(variance > 0, variance, 1.0)
    if (
        size > MAX_DENSE_PARTICLE_COVARIANCE
        or settings.num_particles * settings.target_ess < 10 * size
    ):
        return jnp.sqrt(variance)
    covariance = (centred * weights[:, None]).T @ centred
    return jnp.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * jnp.diag(variance))


def _move(
    key: jax.Array,
    posterior: Posterior,
    cloud: ParticleState,
    temperature: jax.Array,
    chosen: jax.Array,
    half: jax.Array,
    roots: jax.Array,
    settings: Settings,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Move the chosen particles, in coordinates that whiten them.

    Nothing that shapes a particle's move may depend on where that particle stands. The number of
    moves therefore is a stage's from the stage before; descendants of one half of the particles
    are scaled by the covariance of the other half; and the step size changes between stages, and
    within one only when it is far off, for one half by the acceptance of the other. (Step sizes
    that follow all particles' acceptance from move to move, stopping when they have decorrelated,
    one covariance for all: each was seen to inflate the cloud by a percent or two at 512
    particles in 20 dimensions, and to lose up to a nat of evidence.)
    """

    def place(half: jax.Array, white: jax.Array) -> jax.Array:
        first, second = (root * white if root.ndim == 1 else root @ white for root in roots)
        return jnp.where(half == 0, first, second)

    def whiten(half: jax.Array, xi: jax.Array) -> jax.Array:
        if roots.ndim == 2:
            return xi / roots[half]
        first, second = (solve_triangular(root, xi, lower=True) for root in roots)
        return jnp.where(half == 0, first, second)

    def log_density(half: jax.Array, white: jax.Array) -> jax.Array:
        prior, likelihood = posterior.log_terms(place(half, white))
        return prior + temperature * jnp.where(jnp.isnan(likelihood), -jnp.inf, likelihood)

    initialise, transition = _hmc() if settings.moves == "hmc" else _rwm()
    number, target = settings.num_particles, settings.target_acceptance
    members = jnp.stack([half == 0, half == 1])

    def one(_: Any, carry: Any) -> Any:
        state, key, log_steps, _, leapfrogs = carry
        key, jitter_key, length_key, move_key = jax.random.split(key, 4)
        spread = jax.random.uniform(jitter_key, (number,), log_steps.dtype, -JITTER, JITTER)
        steps = jnp.exp(log_steps)[half] * (1 + spread)
        length = 0.5 * jnp.pi / jnp.exp(log_steps.mean()) + jax.random.uniform(length_key)
        length = jnp.clip(length, 1, settings.max_leapfrogs).astype(int)

        def each(key: Any, state: Any, step: Any, half: Any) -> Any:
            return transition(key, state, functools.partial(log_density, half), step, length)

        keys = jax.random.split(move_key, number)
        state, rates = over(each, settings)(keys, state, steps, half)
        sums, counts = jnp.sum(members * rates[None, :], 1), jnp.sum(members, 1)
        excess = jnp.where(counts > 0, sums / jnp.maximum(counts, 1) - target, 0)
        change = jnp.where(jnp.abs(excess) > TOLERANCE, GAIN * excess, 0)
        changed = (log_steps + change)[::-1]  # each half by the experience of the other
        return state, key, changed, jnp.mean(rates), leapfrogs + length

    before = cloud.xi[chosen]
    white = over(whiten, settings)(half, before)
    with jax.numpy_rank_promotion("allow"):
        first = over(lambda h, w: initialise(w, functools.partial(log_density, h)), settings)(
            half, white
        )
        zero = jnp.zeros((), before.dtype)
        log_steps = jnp.full(2, cloud.log_step)
        state, _, log_steps, rate, leapfrogs = jax.lax.fori_loop(
            0, cloud.num_moves, one, (first, key, log_steps, zero, jnp.zeros((), int))
        )
    xi = over(place, settings)(half, state.position)
    return (
        xi,
        log_steps.mean() + rate - target,
        {
            "acceptance": rate,
            "num_moves": cloud.num_moves,
            "num_leapfrogs": leapfrogs,
            "correlation": _correlation(before, xi),
        },
    )


def _correlation(before: jax.Array, after: jax.Array) -> jax.Array:
    a, b = before - before.mean(0, keepdims=True), after - after.mean(0, keepdims=True)
    norms = jnp.sqrt(jnp.sum(a**2, 0) * jnp.sum(b**2, 0))
    correlation = jnp.where(norms > 0, jnp.sum(a * b, 0) / jnp.where(norms > 0, norms, 1), 1)
    return jnp.sqrt(jnp.maximum(jnp.mean(correlation**2) - 1 / before.shape[0], 0))


def _hmc() -> tuple[Any, Any]:
    from blackjax.mcmc import hmc

    kernel = hmc.build_kernel()

    def transition(key: Any, state: Any, log_density: Any, step: Any, length: Any) -> Any:
        mass = jnp.ones_like(state.position)
        state, info = kernel(key, state, log_density, step, mass, length)
        return state, info.acceptance_rate

    return hmc.init, transition


def _rwm() -> tuple[Any, Any]:
    from blackjax.mcmc import random_walk

    kernel = random_walk.build_additive_step()

    def transition(key: Any, state: Any, log_density: Any, step: Any, length: Any) -> Any:
        del length

        def proposal(key: Any, position: Any) -> Any:
            return step * jax.random.normal(key, position.shape, position.dtype)

        state, info = kernel(key, state, log_density, proposal)
        return state, info.acceptance_rate

    return random_walk.init, transition
