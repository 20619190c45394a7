"""`LevenbergMarquardt`: damped Fisher scoring that follows kinks of piecewise linear networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, Int, PyTree

from numpyro_genprior.errors import message
from numpyro_genprior.infer.linalg import conjugate_gradient
from numpyro_genprior.infer.linalg.limits import MAX_DENSE_METRIC, MAX_METRIC_JACOBIAN
from numpyro_genprior.infer.optimize.minimiser import (
    WINDOW,
    AbstractModeFinder,
    EnergyFn,
    ModeFinderState,
    Progress,
    Y,
    rounding_error,
)
from numpyro_genprior.infer.posterior import Linearised, Posterior

PATIENCE = 10  # steps refused in a row before the damping grows fast
GIVE_UP = 40  # steps refused in a row after which no step will succeed
CG_ERROR = 0.03  # of a step, relative to its length in the metric; the next step corrects for it
MAX_CG_STEPS = 100
MIN_DAMPING, MAX_DAMPING = 1e-8, 1e12


class LinearModel(eqx.Module):
    """The memory of Levenberg-Marquardt: the damping, and a linear model of the energy.

    Attributes
    ----------
    damping
        λ.
    gradient
        The gradient at the current point, or a combination of it with gradients nearby.
    error
        Error of the linear model with that combination at the current point, in nats.
    failures
        Steps refused in a row.
    confirming
        Whether the next step is undamped, to confirm that this is the minimum.
    """

    damping: Float[Array, ""]
    gradient: Float[Array, " latent"]
    error: Float[Array, ""]
    failures: Int[Array, ""]
    confirming: Bool[Array, ""]


class LevenbergMarquardt(AbstractModeFinder):
    """Levenberg-Marquardt with the Fisher metric in place of JᵀJ.

    The step p solves ``(M + λ) p = -g``, with the metric ``M = prior precision + JᵀFJ``. The ratio
    of the actual to the predicted decrease sets λ [1]_ [2]_. For Gaussian noise of known scale this
    is Levenberg-Marquardt on the residuals; for other likelihoods it is damped Fisher scoring.
    Up to 256 coordinates the metric is formed and factored, beyond that conjugate gradients solve
    with products.

    An `optimistix.AbstractMinimiser`: pass it to `numpyro_genprior.infer.find_map` as ``solver=``,
    or to ``optimistix.minimise`` with a `Posterior` as ``args``, which gives the metric.

    Parameters
    ----------
    rtol, atol
        The tolerance of the energy: ``atol + rtol * |energy|`` nats.

    Raises
    ------
    TypeError
        If ``args`` is not a `Posterior`.
    ValueError
        If the Fisher information of an observed distribution is not known.

    Notes
    -----
    The gradient of a network of ReLUs jumps at its kinks, where Levenberg-Marquardt by itself gets
    stuck far above the mode. After a refused step, g is therefore combined with the gradient at the
    end of that step, as in bundle methods [3]_: the combination points along the kink, and where it
    vanishes there is a mode on the kink. λ then grows slowly, by 1.3: a combined
    gradient lowers the energy more than a shorter step does.

    **Fails when** it starts at a saddle point, where it stays.

    References
    ----------
    .. [1] Moré, The Levenberg-Marquardt algorithm, 1978.
    .. [2] Nielsen, Damping parameter in Marquardt's method, IMM report, 1999.
    .. [3] Kiwiel, An aggregate subgradient method for nonsmooth convex minimization, Mathematical
       Programming 1983.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, optimistix
    >>> from numpyro_genprior.infer import LevenbergMarquardt, Posterior
    >>> def model(y):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
    >>> posterior = Posterior(model, (jnp.array(2.0),))
    >>> solution = optimistix.minimise(
    ...     lambda xi, posterior: posterior.energy(xi),
    ...     LevenbergMarquardt(),
    ...     jnp.zeros(1),
    ...     posterior,
    ... )
    >>> solution.value.round(3)
    Array([1.], dtype=float32)
    """

    rtol: float = 0.0
    atol: float = 1e-3

    def init(
        self,
        fn: EnergyFn,
        y: Y,
        args: Posterior,
        options: dict[str, Any],
        f_struct: PyTree,
        aux_struct: PyTree,
        tags: frozenset[object],
    ) -> ModeFinderState[LinearModel]:
        _require_posterior(args)
        (energy, aux), gradient = jax.value_and_grad(fn, has_aux=True)(y, args)
        zero = jnp.zeros((), gradient.dtype)
        memory = LinearModel(zero + 1, gradient, zero, jnp.zeros((), int), zero > 0)
        return ModeFinderState(Progress.first(energy), memory, aux)

    def step(
        self,
        fn: EnergyFn,
        y: Y,
        args: Posterior,
        options: dict[str, Any],
        state: ModeFinderState[LinearModel],
        tags: frozenset[object],
    ) -> tuple[Y, ModeFinderState[LinearModel], Any]:
        model, energy = state.memory, state.progress.energy
        tolerance, noise = self.tolerance(energy), rounding_error(energy)
        damping = jnp.where(model.confirming, 0, model.damping)
        solve, metric = _solver(args.linearise(y), damping)
        # The step p, its predicted decrease, and the gap to the minimum.
        p = -solve(model.gradient)
        decrement = -0.5 * model.gradient @ p
        # M + λ ≤ (1 + λ) M where the prior is standard normal: this bounds the undamped decrement.
        gap = (1 + damping) * decrement + model.error
        # Accept the step unless it raises the energy.
        (trial, aux), gradient = jax.value_and_grad(fn, has_aux=True)(y + p, args)
        accepted = (trial <= energy + noise) & jnp.all(jnp.isfinite(gradient))
        predicted = -(model.gradient @ p + 0.5 * p @ metric(p))
        ratio = (energy - trial) / jnp.maximum(predicted, noise)
        ratio = jnp.clip(jnp.where(predicted < noise, 1.0, ratio), 0.0, 1.0)
        # After a refused step, combine gradients; adapt the damping by Nielsen's factor.
        combined, error = _combine(model, gradient, energy - trial + gradient @ p, solve)
        failures = jnp.where(accepted, 0, model.failures + 1)
        growth = jnp.where(failures > PATIENCE, 4.0, 1.3)
        factor = jnp.where(accepted, jnp.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3), growth)
        updated = LinearModel(
            damping=jnp.clip(model.damping * factor, MIN_DAMPING, MAX_DAMPING),
            gradient=jnp.where(accepted, gradient, combined),
            error=jnp.where(accepted, 0.0, error),
            failures=failures,
            confirming=~model.confirming & (gap < tolerance),
        )
        progress = state.progress.after_step(
            jnp.where(accepted, trial, energy),
            gap,
            at_minimum=model.confirming & (gap < tolerance),
            may_stall=(failures < WINDOW) | (failures > GIVE_UP),
            tolerance=tolerance,
        )
        updated = jax.tree.map(lambda new, old: new.astype(old.dtype), updated, model)
        aux = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), aux, state.aux)
        return jnp.where(accepted, y + p, y), ModeFinderState(progress, updated, aux), aux


def _require_posterior(args: object) -> None:
    if not isinstance(args, Posterior):
        raise TypeError(
            message(
                "LevenbergMarquardt computes its metric from a Posterior",
                expected="a numpyro_genprior.infer.Posterior as args",
                got=type(args).__name__,
                remedy="call optimistix.minimise(lambda xi, posterior: posterior.energy(xi), "
                "solver, xi, posterior), or use LBFGS, which needs no metric",
            )
        )


def _combine(
    model: LinearModel,
    gradient: jax.Array,
    error: jax.Array,
    solve: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The convex combination of two gradients that predicts the least decrease.

    It points along a kink and not across it, and minimises ``aᵀ(M + λ)⁻¹a / 2`` plus the
    error of the linear model, which keeps out gradients from far away (those of a step that was
    only too long).
    """
    error = jnp.abs(error)
    change = gradient - model.gradient
    solved = solve(change)
    weight = -(model.gradient @ solved + error - model.error) / (change @ solved)
    weight = jnp.clip(jnp.where(jnp.isfinite(weight), weight, 0.0), 0.0, 1.0)

    def mixed(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(weight > 0, old + weight * (new - old), old)

    return mixed(model.gradient, gradient), mixed(model.error, error)


def _solver(
    linearised: Linearised, damping: jax.Array
) -> tuple[Callable[[jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]:
    """The products ``(M + λ)⁻¹ b`` and ``M v``."""
    size = linearised.posterior.size
    if size <= MAX_DENSE_METRIC and size * linearised.num_rows <= MAX_METRIC_JACOBIAN:
        metric = linearised.dense()
        factor = cho_factor(metric + damping * jnp.eye(size, dtype=metric.dtype), lower=True)
        return lambda b: cho_solve(factor, b), lambda v: metric @ v

    def damped(v: jax.Array) -> jax.Array:
        return linearised.metric(v) + damping * v

    def solve(b: jax.Array) -> jax.Array:
        return conjugate_gradient.solve(
            damped,
            b,
            error=0.0,
            relative=CG_ERROR,
            smallest=_smallest_eigenvalue(linearised) + damping,
            max_steps=MAX_CG_STEPS,
        ).x

    return solve, linearised.metric


def _smallest_eigenvalue(linearised: Linearised) -> jax.Array:
    """A lower bound of the eigenvalues of the metric: the prior's smallest."""
    one = jnp.ones((), linearised.xi.dtype)
    if linearised.precision is None:
        return one
    values = (
        linearised.precision
        if linearised.precision.ndim == 1
        else jnp.linalg.eigvalsh(linearised.precision)
    )
    return jnp.minimum(one, jnp.min(values))
