"""Local moves of one replica: Hamiltonian trajectories of a fixed number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Target = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""Log likelihood of flat coordinates and its gradient."""


class ReplicaState(NamedTuple):
    """Where a replica is: coordinates ``(d,)``, log likelihood and its gradient there."""

    xi: jax.Array
    log_likelihood: jax.Array
    gradient: jax.Array


class Metric(NamedTuple):
    """Directions and their time scales: an orthogonal matrix (None: the axes) and ``(d,)``.

    The time scale of a direction is ``precision^(-1/2)``, precision being that of the tempered
    posterior within a mode, on average.
    """

    scale: jax.Array
    basis: jax.Array | None

    def into(self, vector: jax.Array) -> jax.Array:
        return vector if self.basis is None else vector @ self.basis

    def out(self, vector: jax.Array) -> jax.Array:
        return vector if self.basis is None else self.basis @ vector


def visit(target: Target, xi: jax.Array) -> ReplicaState:
    """A spot at `xi`. A log likelihood that is no number, or +∞, becomes NaN."""
    value, gradient = target(xi)
    return ReplicaState(xi, jnp.where(value == jnp.inf, jnp.nan, value), gradient)


def trajectory(
    target: Target,
    spot: ReplicaState,
    velocity: jax.Array,
    chance: jax.Array,
    beta: jax.Array,
    step_size: jax.Array,
    metric: Metric,
    num_steps: int,
) -> tuple[ReplicaState, jax.Array, jax.Array]:
    """One Metropolis-adjusted trajectory for ``N(ξ; 0, I) · likelihood^β``.

    The prior's part of the motion, a rotation, is followed exactly, and the likelihood kicks
    (Shahbaba, Lan, Johnson & Neal 2014; Beskos, Pinski, Sanz-Serna & Stuart 2011): as β falls to
    0, any step size is accepted.

    Parameters
    ----------
    target, spot
        Log likelihood with its gradient, and the start.
    velocity, chance
        Standard normal numbers ``(d,)``, and two uniform ones: for the length of the trajectory
        and for its acceptance.
    beta, step_size, metric, num_steps
        The tempered posterior and how to move in it.

    Returns
    -------
    ReplicaState, jax.Array, jax.Array
        The next spot, the acceptance probability and whether the energy at the end was no number.
    """
    jitter = 0.8 + 0.4 * chance[0]
    angle = step_size * jitter * metric.scale
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def kick(velocity: jax.Array, gradient: jax.Array) -> jax.Array:
        return velocity + 0.5 * angle * beta * metric.into(gradient)

    def advance(_: int, carry: tuple[ReplicaState, jax.Array]) -> tuple[ReplicaState, jax.Array]:
        spot, velocity = carry
        velocity = kick(velocity, spot.gradient)
        place = metric.into(spot.xi)
        place, velocity = cos * place + sin * velocity, cos * velocity - sin * place
        spot = visit(target, metric.out(place))
        return spot, kick(velocity, spot.gradient)

    def energy(spot: ReplicaState, velocity: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(spot.xi**2) + 0.5 * jnp.sum(velocity**2) - beta * spot.log_likelihood

    end, last = jax.lax.fori_loop(0, num_steps, advance, (spot, velocity))
    log_ratio = energy(spot, velocity) - energy(end, last)
    bad = jnp.isnan(log_ratio)
    accept_prob = jnp.where(bad, 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    accepted = chance[1] < accept_prob
    spot = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), end, spot)
    return spot, accept_prob, jnp.isnan(end.log_likelihood)
