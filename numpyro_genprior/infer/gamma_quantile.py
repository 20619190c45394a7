"""The quantile function of the gamma distribution, from standard normal coordinates."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.lax import random_gamma_grad
from jax.scipy.special import gammainc, gammaincc, gammaln, log_ndtr, ndtri

MAX_STEPS = 60


def gamma_coordinates(x: jax.Array, concentration: jax.Array) -> jax.Array:
    """Solve ``Φ(ξ) = F(x)`` for ξ, with F the distribution function of Gamma(concentration, 1).

    Elementwise, from the smaller of the two tails, which keeps its relative precision.
    """
    lower, upper = gammainc(concentration, x), gammaincc(concentration, x)
    tiny = jnp.finfo(x.dtype).tiny
    return jnp.where(
        lower < upper, ndtri(jnp.maximum(lower, tiny)), -ndtri(jnp.maximum(upper, tiny))
    )


@jax.custom_jvp
def gamma_value(xi: jax.Array, concentration: jax.Array) -> jax.Array:
    """Solve ``F(x) = Φ(ξ)`` for x, with F the distribution function of Gamma(concentration, 1).

    Parameters
    ----------
    xi
        Standard normal coordinates.
    concentration
        Concentration, of the same shape and dtype.

    Returns
    -------
    jax.Array
        At least the smallest normal number; NaN where an argument is NaN.

    Notes
    -----
    Newton's method for ``Φ⁻¹(F(e^t)) = ξ`` in t, which is nearly linear, within a bracket that is
    halved if a step would leave it. The derivatives are those of the implicit function:
    ``dx/dξ = φ(ξ) / f(x)``, and JAX's ``random_gamma_grad`` with respect to the concentration.

    **Source** of the initial value: E. B. Wilson & M. M. Hilferty, "The distribution of
    chi-square", PNAS 17 (1931); near 0 the first term of DLMF 8.7.1.
    """
    tiny, eps = jnp.finfo(xi.dtype).tiny, jnp.finfo(xi.dtype).eps
    floor = jnp.full_like(xi, math.log(tiny))
    # Beyond it the tail underflows, by Chernoff's bound P(X > x) ≤ exp(a - x + a log(x/a)).
    ceiling = jnp.log(4 * concentration - 2 * floor)

    def step(state: _Bracket) -> _Bracket:
        t = state.t
        z = gamma_coordinates(jnp.exp(t), concentration)
        low, high = jnp.where(z < xi, t, state.low), jnp.where(z < xi, state.high, t)
        log_slope = _log_density(t, concentration) + 0.5 * z**2 + 0.5 * math.log(2 * math.pi)
        new = t - (z - xi) * jnp.exp(-log_slope)
        inside = (new >= low) & (new <= high)  # False for NaN
        new = jnp.where(inside, new, 0.5 * (low + high))
        # Steps square the error: after one of 0.1 √eps it is below eps.
        close = jnp.abs(new - t) <= 0.1 * math.sqrt(eps)
        return _Bracket(new, low, high, state.count + 1, jnp.all(close | (high - low < eps)))

    start = jnp.clip(_initial_log_x(xi, concentration), floor + 1e-3, ceiling - 1e-3)
    first = _Bracket(start, floor, ceiling, jnp.asarray(0), jnp.asarray(False))
    last = jax.lax.while_loop(lambda s: ~s.done & (s.count < MAX_STEPS), step, first)
    x = jnp.exp(jnp.clip(last.t, floor + 1e-3, ceiling))
    return jnp.where(jnp.isnan(xi + concentration), jnp.nan, x)


def _derivative(primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    (xi, concentration), (xi_dot, concentration_dot) = primals, tangents
    x = gamma_value(xi, concentration)
    t = jnp.log(x)
    log_normal = -0.5 * xi**2 - 0.5 * math.log(2 * math.pi)
    slope = jnp.exp(log_normal - _log_density(t, concentration) + t)
    x_dot = jnp.zeros_like(x) if type(xi_dot) is SymbolicZero else slope * xi_dot
    if type(concentration_dot) is not SymbolicZero:  # the series is computed only if needed
        dx = random_gamma_grad(concentration, x)  # pyright: ignore[reportCallIssue]
        x_dot = x_dot + dx * concentration_dot
    return x, x_dot


gamma_value.defjvp(_derivative, symbolic_zeros=True)


class _Bracket(NamedTuple):
    """An iterate ``t = log x`` between `low` and `high`."""

    t: jax.Array
    low: jax.Array
    high: jax.Array
    count: jax.Array
    done: jax.Array


def _log_density(t: jax.Array, concentration: jax.Array) -> jax.Array:
    """Log density of t = log x."""
    return concentration * t - jnp.exp(t) - gammaln(concentration)


def _initial_log_x(xi: jax.Array, concentration: jax.Array) -> jax.Array:
    """Log of Wilson and Hilferty's cube; near 0, from the first term of F, ``x^a / Γ(a + 1)``."""
    root = 1 - 1 / (9 * concentration) + xi / (3 * jnp.sqrt(concentration))
    cube = jnp.log(concentration) + 3 * jnp.log(jnp.maximum(root, 0.1))
    near_zero = (log_ndtr(xi) + gammaln(concentration + 1)) / concentration
    return jnp.where(root > 0.3, cube, near_zero)
