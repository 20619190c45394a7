"""Metric Gaussian variational inference: samples and Newton steps, matrix-free. Pure functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from numpyro_genprior.infer.linalg.conjugate_gradient import solve
from numpyro_genprior.infer.optimize.minimiser import rounding_error
from numpyro_genprior.infer.posterior import Linearised, Posterior

START = 0.1  # standard deviation of the first mean, in prior standard deviations
HALVINGS = 10  # of a Newton step, before it is given up
FORCING = 0.1  # a Newton step is known to this fraction of its length
AT_ONCE = 2**23  # numbers in all samples together, above which they are taken one at a time


@dataclass(frozen=True)
class Settings:
    """What a step compiles for; see `numpyro_genprior.infer.MGVI`."""

    num_samples: int = 4
    tolerance: float = 0.01
    max_cg_steps: int = 1000
    max_newton_steps: int = 10


class Step(NamedTuple):
    """What happened in one step.

    Attributes
    ----------
    kl_before, kl
        Mean energy over the samples, before and after the mean has moved.
    sampling_iterations
        Iterations of conjugate gradients for each pair of samples.
    newton_steps, newton_iterations
        Newton steps, and iterations of conjugate gradients for all of them.
    stopped_early
        How many systems were not solved to the tolerance.
    moved
        Length of the mean's way, in posterior standard deviations: the root mean square over as
        many directions as data can inform.
    decrement
        Likewise of the last Newton step asked for.
    """

    kl_before: jax.Array
    kl: jax.Array
    sampling_iterations: jax.Array
    newton_steps: jax.Array
    newton_iterations: jax.Array
    stopped_early: jax.Array
    moved: jax.Array
    decrement: jax.Array


class Draws(NamedTuple):
    """Draws from N(0, M⁻¹).

    Attributes
    ----------
    s
        Of shape ``(number, size)``.
    iterations
        Of conjugate gradients, for each.
    converged
        Whether each was solved to the tolerance.
    """

    s: jax.Array
    iterations: jax.Array
    converged: jax.Array


def start(key: jax.Array, posterior: Posterior) -> jax.Array:
    """A first mean: a draw near the middle of the prior, for at ξ = 0 gradients may vanish."""
    return START * jax.random.normal(key, (posterior.size,))


def residuals(
    key: jax.Array, posterior: Posterior, xi: jax.Array, number: int, settings: Settings
) -> Draws:
    """Draws from N(0, M⁻¹), M = I + JᵀJ at `xi`."""
    return _residuals(key, posterior.linearise(xi), number, settings)


def _residuals(key: jax.Array, at: Linearised, number: int, settings: Settings) -> Draws:
    """With white η and ζ the covariance of r = η + Jᵀζ is M, and that of M⁻¹r is M⁻¹.

    The solution is sought as η + M⁻¹Jᵀ(ζ - Jη): where the data say nothing it is η.
    """
    size, error = at.xi.size, settings.tolerance * informed(at) ** 0.5

    def some(key: jax.Array, number: int) -> Draws:
        white = jax.random.normal(key, (number, size + at.num_rows), at.xi.dtype)
        eta, zeta = white[:, :size], white[:, size:]
        right = jax.vmap(lambda eta, zeta: at.rmatvec(zeta - at.matvec(eta)))(eta, zeta)
        found = solve(jax.vmap(at.metric), right, error=error, max_steps=settings.max_cg_steps)
        return Draws(eta + found.x, found.steps, found.converged)

    if number * size <= AT_ONCE:
        return some(key, number)
    draws = jax.lax.map(lambda key: some(key, 1), jax.random.split(key, number))
    return jax.tree.map(lambda x: x.reshape(number, *x.shape[2:]), draws)


def step(
    key: jax.Array, posterior: Posterior, xi: jax.Array, settings: Settings
) -> tuple[jax.Array, Step]:
    """Draw samples at the mean `xi`, hold them and move the mean to the least mean energy."""
    at = posterior.linearise(xi)
    draws = _residuals(key, at, settings.num_samples, settings)
    samples = jnp.concatenate([draws.s, -draws.s])
    unit = informed(at) ** 0.5

    def kl(xi: jax.Array) -> tuple[jax.Array, jax.Array]:
        at_sample = jax.value_and_grad(lambda s: posterior.energy(xi + s))
        values, gradients = over(at_sample, xi.size)(samples)
        return values.mean(), gradients.mean(0)

    def newton(state: _Newton) -> _Newton:
        found = solve(
            _mean_metric(posterior, state.xi, samples),
            state.gradient,
            error=0.5 * settings.tolerance * unit,
            relative=FORCING,
            max_steps=settings.max_cg_steps,
        )
        moved = _backtrack(kl, state, found.x)
        decrement = jnp.sqrt(found.square) / unit
        return _Newton(
            xi=moved.xi,
            kl=moved.kl,
            gradient=moved.gradient,
            steps=state.steps + 1,
            iterations=state.iterations + found.steps,
            failed=state.failed + ~found.converged,
            moved=state.moved + moved.size * decrement,
            decrement=decrement,
            done=(moved.size == 0) | (decrement <= settings.tolerance),
        )

    value, gradient = kl(xi)
    zero, none = jnp.zeros((), int), jnp.zeros_like(value)
    first = _Newton(
        xi, value, gradient, zero, zero, zero, none, none + jnp.inf, ~jnp.isfinite(value)
    )
    last = jax.lax.while_loop(
        lambda state: ~state.done & (state.steps < settings.max_newton_steps), newton, first
    )
    return last.xi, Step(
        kl_before=value,
        kl=last.kl,
        sampling_iterations=draws.iterations,
        newton_steps=last.steps,
        newton_iterations=last.iterations,
        stopped_early=last.failed + jnp.sum(~draws.converged),
        moved=last.moved,
        decrement=last.decrement,
    )


def fit(
    key: jax.Array, posterior: Posterior, xi: jax.Array, num_steps: int, settings: Settings
) -> tuple[jax.Array, Step]:
    """All steps as one pure function of fixed sizes, for ``jax.jit`` and ``jax.vmap``.

    Returns
    -------
    tuple
        The mean, and a `Step` whose arrays have the steps as first dimension.
    """

    def one(xi: jax.Array, index: jax.Array) -> tuple[jax.Array, Step]:
        return step(jax.random.fold_in(key, index), posterior, xi, settings)

    return jax.lax.scan(one, xi, jnp.arange(num_steps))


def informed(at: Linearised) -> int:
    """How many directions data can inform, at most."""
    return max(1, min(at.xi.size, at.num_rows))


class _Newton(NamedTuple):
    xi: jax.Array
    kl: jax.Array
    gradient: jax.Array
    steps: jax.Array
    iterations: jax.Array
    failed: jax.Array
    moved: jax.Array
    decrement: jax.Array
    done: jax.Array


class _Trial(NamedTuple):
    size: jax.Array
    xi: jax.Array
    kl: jax.Array
    gradient: jax.Array


def _mean_metric(
    posterior: Posterior, xi: jax.Array, samples: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """Products v + mean of JᵀJ v over the samples, which are linearised once.

    The map over samples is around the derivative, and not inside of it: what acts on v alike for
    all samples, as a field's transform, then does so once.
    """

    def tangents(v: jax.Array) -> jax.Array:
        return over(lambda s: jax.jvp(posterior.whitened, (xi + s,), (v,))[1], xi.size)(samples)

    _, matvec = jax.linearize(tangents, jnp.zeros_like(xi))
    transposed = jax.linear_transpose(matvec, xi)

    def metric(v: jax.Array) -> jax.Array:
        return v + transposed(matvec(v))[0] / samples.shape[0]

    return metric


def _backtrack(
    kl: Callable[[jax.Array], tuple[jax.Array, jax.Array]], at: _Newton, direction: jax.Array
) -> _Trial:
    """Go against `direction`, by half as much until the energy does not rise, or not at all."""
    highest = at.kl + rounding_error(at.kl)

    def rises(trial: _Trial) -> jax.Array:  # not-a-number counts as a rise
        return ~(trial.kl <= highest) & (trial.size > 2.0**-HALVINGS)

    def halve(trial: _Trial) -> _Trial:
        size = trial.size / 2
        moved = at.xi - size * direction
        return _Trial(size, moved, *kl(moved))

    never = jnp.full_like(at.kl, jnp.inf)
    last = jax.lax.while_loop(
        rises, halve, _Trial(jnp.full_like(at.kl, 2), at.xi, never, at.gradient)
    )
    stay = _Trial(jnp.zeros_like(at.kl), at.xi, at.kl, at.gradient)
    return jax.tree.map(functools.partial(jnp.where, last.kl <= highest), last, stay)


def over(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    """Map over samples of `size` numbers: at once, or one by one where they are large."""

    def mapped(samples: jax.Array) -> Any:
        if size * samples.shape[0] <= AT_ONCE:
            return jax.vmap(function)(samples)
        return jax.lax.map(function, samples)

    return mapped


one_step = jax.jit(step, static_argnames="settings")
draw = functools.partial(jax.jit, static_argnames=("number", "settings"))(residuals)
