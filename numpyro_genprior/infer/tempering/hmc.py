"""Local exploration of one replica: Hamiltonian trajectories with a fixed number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

LogLikelihood = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""Log likelihood of flat coordinates, with its gradient."""

JITTER = 0.2  # step sizes are varied by this fraction


class ReplicaState(NamedTuple):
    """Coordinates ``(d,)`` of a replica, with the log likelihood and its gradient there."""

    xi: jax.Array
    log_likelihood: jax.Array
    gradient: jax.Array


class Metric(NamedTuple):
    """Time scales ``(d,)`` along the columns of an orthogonal matrix (None: along the axes).

    The time scale of a direction is ``precision^(-1/2)``, where the precision is that of the
    tempered posterior within a mode, on average.
    """

    scale: jax.Array
    basis: jax.Array | None

    def to_basis(self, vector: jax.Array) -> jax.Array:
        """Components of a vector along the directions of the metric."""
        return vector if self.basis is None else vector @ self.basis

    def from_basis(self, vector: jax.Array) -> jax.Array:
        """The inverse of `to_basis`."""
        return vector if self.basis is None else self.basis @ vector


def evaluate(log_likelihood: LogLikelihood, xi: jax.Array) -> ReplicaState:
    """The replica state at `xi`; a log likelihood of +∞ becomes NaN."""
    value, gradient = log_likelihood(xi)
    return ReplicaState(xi, jnp.where(value == jnp.inf, jnp.nan, value), gradient)


def trajectory(
    log_likelihood: LogLikelihood,
    replica: ReplicaState,
    velocity: jax.Array,
    uniforms: jax.Array,
    beta: jax.Array,
    step_size: jax.Array,
    metric: Metric,
    num_steps: int,
) -> tuple[ReplicaState, jax.Array, jax.Array]:
    """One Metropolis-adjusted trajectory for the density ``N(ξ; 0, I) · likelihood^β``.

    The integrator splits the Hamiltonian: the rotation under the prior is exact, and the
    likelihood changes the velocity (Shahbaba, Lan, Johnson & Neal 2014; Beskos, Pinski,
    Sanz-Serna & Stuart 2011). As β tends to 0, every step size is accepted.

    Parameters
    ----------
    log_likelihood, replica
        Log likelihood with its gradient, and the initial state.
    velocity
        Standard normal numbers ``(d,)``.
    uniforms
        Two uniform numbers, for the jitter of the step size and for acceptance.
    beta, step_size, metric, num_steps
        Inverse temperature, and settings of the integrator.

    Returns
    -------
    ReplicaState, jax.Array, jax.Array
        The next state, the acceptance probability, and whether the log likelihood at the end was
        NaN.
    """
    jitter = (1 - JITTER) + 2 * JITTER * uniforms[0]
    angle = step_size * jitter * metric.scale
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def kick(velocity: jax.Array, gradient: jax.Array) -> jax.Array:
        return velocity + 0.5 * angle * beta * metric.to_basis(gradient)

    def leapfrog(_: int, carry: tuple[ReplicaState, jax.Array]) -> tuple[ReplicaState, jax.Array]:
        replica, velocity = carry
        velocity = kick(velocity, replica.gradient)
        position = metric.to_basis(replica.xi)
        position, velocity = (
            cos * position + sin * velocity,
            cos * velocity - sin * position,
        )
        replica = evaluate(log_likelihood, metric.from_basis(position))
        return replica, kick(velocity, replica.gradient)

    def energy(replica: ReplicaState, velocity: jax.Array) -> jax.Array:
        prior = 0.5 * jnp.sum(replica.xi**2)
        return prior + 0.5 * jnp.sum(velocity**2) - beta * replica.log_likelihood

    proposal, final_velocity = jax.lax.fori_loop(0, num_steps, leapfrog, (replica, velocity))
    log_ratio = energy(replica, velocity) - energy(proposal, final_velocity)
    accept_prob = jnp.where(jnp.isnan(log_ratio), 0, jnp.exp(jnp.minimum(log_ratio, 0)))
    accepted = uniforms[1] < accept_prob
    new = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposal, replica)
    return new, accept_prob, jnp.isnan(proposal.log_likelihood)
