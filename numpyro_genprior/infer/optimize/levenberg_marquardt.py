"""One step of Levenberg-Marquardt in the Fisher metric, along the creases of networks of ReLUs.

The step p solves ``(M + λ) p = -g`` with the metric ``M = prior precision + JᵀFJ``. Its gain
against what the quadratic promised sets λ [1]_ [2]_.

Networks of ReLUs have creases, where the gradient jumps and Levenberg-Marquardt by itself gets
stuck far above the mode. After a step that is refused, g is therefore combined with the gradient at
the step's end, as bundle methods do [3]_: the combination points along the crease, and where it
vanishes is a mode on the crease. λ then grows slowly, by 1.3: a combination is worth more than a
shorter step.

References
----------
.. [1] Moré, The Levenberg-Marquardt algorithm, 1978.
.. [2] Nielsen, Damping parameter in Marquardt's method, IMM report, 1999.
.. [3] Kiwiel, An aggregate subgradient method for nonsmooth convex minimization, Mathematical
   Programming 1983.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.scipy.sparse.linalg import cg

from numpyro_genprior.infer.posterior import DENSE, Linearised, Posterior

ENTRIES = 2**22  # largest Jacobian that is formed
WINDOW = 10  # steps over which the energy has to fall
PATIENCE = 10  # steps refused in a row before the damping grows fast
GIVE_UP = 40  # steps refused in a row after which no step will do
CG_TOLERANCE, CG_STEPS = 1e-2, 100  # of one step; the next one mends what is left


class Bundle(NamedTuple):
    """What Levenberg-Marquardt knows at the present point."""

    damping: jax.Array  # λ
    gradient: jax.Array  # there, or a combination with gradients nearby
    error: jax.Array  # how far the linear model of that combination is off at this point, in nats
    failures: jax.Array  # steps refused in a row
    closing: jax.Array  # whether the next step is undamped, to see if this is the mode

    @classmethod
    def first(cls, gradient: jax.Array) -> Bundle:
        zero = jnp.zeros((), gradient.dtype)
        return cls(zero + 1, gradient, zero, jnp.zeros((), int), zero > 0)


def step(posterior: Posterior, xi: Any, energy: Any, bundle: Bundle, tolerance: Any) -> Any:
    """The next point and its energy, the gap of this one, whether it is the mode, whether a window
    without progress means anything, and the bundle there.
    """
    damping = jnp.where(bundle.closing, 0, bundle.damping)
    solve, metric = _solver(posterior.linearise(xi), damping)
    p = -solve(bundle.gradient)
    decrement = -0.5 * bundle.gradient @ p
    # M + λ ≤ (1 + λ) M where the prior is standard normal: this bounds the undamped decrement.
    gap = (1 + damping) * decrement + bundle.error
    trial, gradient = jax.value_and_grad(posterior.energy)(xi + p)
    noise = rounding(energy)
    accepted = (trial <= energy + noise) & jnp.all(jnp.isfinite(gradient))
    predicted = -(bundle.gradient @ p + 0.5 * p @ metric(p))
    gain = (energy - trial) / jnp.maximum(predicted, noise)
    gain = jnp.clip(jnp.where(predicted < noise, 1.0, gain), 0.0, 1.0)
    combined, error = _combine(bundle, gradient, energy - trial + gradient @ p, solve)
    failures = jnp.where(accepted, 0, bundle.failures + 1)
    growth = jnp.where(failures > PATIENCE, 4.0, 1.3)
    factor = jnp.where(accepted, jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3), growth)
    new = Bundle(
        damping=jnp.clip(bundle.damping * factor, 1e-8, 1e12),
        gradient=jnp.where(accepted, gradient, combined),
        error=jnp.where(accepted, 0.0, error),
        failures=failures,
        closing=~bundle.closing & (gap < tolerance),
    )
    return (
        jnp.where(accepted, xi + p, xi),
        jnp.where(accepted, trial, energy),
        gap,
        bundle.closing & (gap < tolerance),
        (failures < WINDOW) | (failures > GIVE_UP),
        jax.tree.map(lambda new, old: new.astype(old.dtype), new, bundle),
    )


def _combine(bundle: Bundle, gradient: Any, error: Any, solve: Any) -> tuple[Any, Any]:
    """The combination of two gradients that promises least: along a crease, not across it.

    It minimises ``aᵀ(M + λ)⁻¹a / 2`` plus the error of the linear model, which keeps gradients from
    afar (a step that was merely too long) out.
    """
    error = jnp.abs(error)
    change = gradient - bundle.gradient
    solved = solve(change)
    part = -(bundle.gradient @ solved + error - bundle.error) / (change @ solved)
    part = jnp.clip(jnp.where(jnp.isfinite(part), part, 0.0), 0.0, 1.0)

    def mixed(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(part > 0, old + part * (new - old), old)

    return mixed(bundle.gradient, gradient), mixed(bundle.error, error)


def _solver(at: Linearised, damping: jax.Array) -> tuple[Any, Any]:
    """The products ``(M + λ)⁻¹ b`` and ``M v``."""
    size = at.posterior.size
    if size <= DENSE and size * at.num_rows <= ENTRIES:
        metric = at.dense()
        factor = cho_factor(metric + damping * jnp.eye(size, dtype=metric.dtype), lower=True)
        return lambda b: cho_solve(factor, b), lambda v: metric @ v

    def damped(v: jax.Array) -> jax.Array:
        return at.metric(v) + damping * v

    return lambda b: cg(damped, b, tol=CG_TOLERANCE, maxiter=CG_STEPS)[0], at.metric


def rounding(energy: jax.Array) -> jax.Array:
    """What an energy is uncertain by, as a sum of many terms."""
    return 8 * jnp.finfo(energy.dtype).eps * (1 + jnp.abs(energy))
