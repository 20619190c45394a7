"""Minimise the energy of a posterior from many starts: pure functions of fixed sizes.

The solver is `LevenbergMarquardt`, `LBFGS`, or any minimiser or least-squares solver of optimistix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Bool, Float, Int

from numpyro_genprior.errors import message
from numpyro_genprior.infer.optimize.lbfgs import LBFGS
from numpyro_genprior.infer.optimize.levenberg_marquardt import LevenbergMarquardt
from numpyro_genprior.infer.optimize.minimiser import AbstractModeFinder, ModeFinderState, Y
from numpyro_genprior.infer.optimize.residuals import residuals
from numpyro_genprior.infer.posterior import Posterior

Solver = optimistix.AbstractMinimiser | optimistix.AbstractLeastSquaresSolver


class Minima(NamedTuple):
    """Where minimisations ended, one for each start.

    Attributes
    ----------
    xi
        Coordinates, of shape ``(num_starts, size)``.
    energy
        Minus the log joint density there, in nats.
    gap
        How far the energy lies above its minimum according to the local quadratic, in nats (for
        solvers other than `LevenbergMarquardt` the upper bound ``|gradient|²/2``). Large where a
        minimisation stopped at a kink of a piecewise linear network, or by rounding.
    converged
        Whether the solver's own test of convergence was met, at a finite energy.
    num_steps
        Steps taken.
    result
        The solver's ``optimistix.RESULTS``: why those that have not converged stopped.
    """

    xi: Float[Array, "start latent"]
    energy: Float[Array, " start"]
    gap: Float[Array, " start"]
    converged: Bool[Array, " start"]
    num_steps: Int[Array, " start"]
    result: optimistix.RESULTS

    @property
    def best(self) -> jax.Array:
        """Index of the lowest finite energy."""
        return lowest(self.energy)


class Iteration(NamedTuple):
    """Minimisations in progress, one for each start."""

    xi: Float[Array, "start latent"]
    state: ModeFinderState[Any]

    @property
    def active(self) -> jax.Array:
        """Which of them have not stopped."""
        progress = self.state.progress
        return ~progress.converged & jnp.isfinite(progress.energy)


def lowest(energy: Float[Array | np.ndarray, " n"]) -> Int[Array, ""]:
    """Index of the lowest finite energy."""
    return jnp.argmin(jnp.where(jnp.isfinite(energy), energy, jnp.inf))


def minimise(
    posterior: Posterior,
    starts: Float[Array, "start latent"],
    solver: Solver | None = None,
    *,
    max_steps: int = 200,
) -> Minima:
    """Minimise the energy from each start.

    A pure function of its arrays, for use under ``jax.jit`` and ``jax.vmap``. `find_map` adds prior
    draws as starts, a progress bar, distinct modes and warnings.

    Parameters
    ----------
    posterior
        A `Posterior`.
    starts
        Coordinates, of shape ``(num_starts, size)``.
    solver
        `LevenbergMarquardt`, `LBFGS`, an ``optimistix.AbstractMinimiser`` (which is given the
        energy) or an ``optimistix.AbstractLeastSquaresSolver`` (which is given the residuals of
        `numpyro_genprior.infer.optimize.residuals`). None: see `default_solver`.
    max_steps
        Maximum number of steps of each start.

    Returns
    -------
    Minima
        One row for each start. A start with an energy that is not finite stays where it is.

    Raises
    ------
    TypeError
        If `solver` is not a solver.
    ValueError
        If `solver` is `LevenbergMarquardt` and the Fisher information of an observed distribution
        is not known; if it is a least-squares solver and the energy is not a sum of squares.

    Notes
    -----
    **Fails when** a start is a saddle point: it then stays there.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_genprior.infer.optimize.minimise import minimise
    >>> from numpyro_genprior.infer.posterior import Posterior
    >>> def model(y):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
    >>> minima = minimise(Posterior(model, (jnp.array(2.0),)), jnp.array([[-3.0], [4.0]]))
    >>> minima.xi.round(3).ravel(), minima.converged
    (Array([1., 1.], dtype=float32), Array([ True,  True], dtype=bool))
    """
    solver = default_solver(posterior) if solver is None else check_solver(solver)
    if not isinstance(solver, AbstractModeFinder):
        return _minimise_by_optimistix(posterior, starts, solver, max_steps)
    first = begin(posterior, starts, solver)
    return minima(advance(posterior, first, solver, max_steps))


def default_solver(posterior: Posterior, *, atol: float = 1e-3) -> AbstractModeFinder:
    """`LevenbergMarquardt` where the Fisher information is known, and otherwise `LBFGS`."""
    xi = jax.ShapeDtypeStruct((posterior.size,), jnp.result_type(float))
    try:
        jax.eval_shape(posterior.whitened, xi)
    except (ValueError, NotImplementedError):
        return LBFGS(atol=atol)
    return LevenbergMarquardt(atol=atol)


def check_solver(solver: object) -> Solver:
    """Return `solver` if it is one.

    Raises
    ------
    TypeError
        If it is not an optimistix minimiser or least-squares solver.
    """
    if not isinstance(solver, Solver):
        raise TypeError(
            message(
                "Not a solver for modes",
                expected="an optimistix minimiser or least-squares solver, or None",
                got=repr(solver),
                remedy="leave solver=None for the usual choice, or pass e.g. ngp.infer.LBFGS() or "
                "optimistix.BFGS(rtol=1e-6, atol=1e-6)",
            )
        )
    return solver


# ---- solvers of this package --------------------------------------------------------------------


def _energy(xi: Y, posterior: Posterior) -> tuple[Float[Array, ""], None]:
    return posterior.energy(xi), None


def begin(
    posterior: Posterior, starts: Float[Array, "start latent"], solver: AbstractModeFinder
) -> Iteration:
    """Each start before its first step."""

    def one(xi: Y) -> Iteration:
        struct = jax.ShapeDtypeStruct((), xi.dtype)
        return Iteration(xi, solver.init(_energy, xi, posterior, {}, struct, None, frozenset()))

    return jax.vmap(one)(starts)


def advance(
    posterior: Posterior,
    iteration: Iteration,
    solver: AbstractModeFinder,
    num_steps: int | np.ndarray,
) -> Iteration:
    """At most `num_steps` steps of each start that is active."""

    def one(old: Iteration) -> Iteration:
        xi, state, _ = solver.step(_energy, old.xi, posterior, {}, old.state, frozenset())
        new, active = Iteration(xi, state), old.active
        return jax.tree.map(lambda new, old: jnp.where(active, new, old), new, old)

    def unfinished(carry: tuple[jax.Array, Iteration]) -> jax.Array:
        return (carry[0] < num_steps) & jnp.any(carry[1].active)

    def body(carry: tuple[jax.Array, Iteration]) -> tuple[jax.Array, Iteration]:
        return carry[0] + 1, jax.vmap(one)(carry[1])

    return jax.lax.while_loop(unfinished, body, (jnp.array(0), iteration))[1]


def minima(iteration: Iteration) -> Minima:
    """The current points of minimisations."""
    progress, results = iteration.state.progress, optimistix.RESULTS

    def result(active: jax.Array, energy: jax.Array) -> optimistix.RESULTS:
        done = results.where(active, results.nonlinear_max_steps_reached, results.successful)
        return results.where(jnp.isfinite(energy), done, results.nonfinite)

    return Minima(
        xi=iteration.xi,
        energy=progress.energy,
        gap=progress.gap,
        converged=progress.converged,
        num_steps=progress.num_steps,
        result=jax.vmap(result)(iteration.active, progress.energy),
    )


# ---- solvers of optimistix -----------------------------------------------------------------------


def _minimise_by_optimistix(
    posterior: Posterior,
    starts: Float[Array, "start latent"],
    solver: Solver,
    max_steps: int,
) -> Minima:
    least_squares = isinstance(solver, optimistix.AbstractLeastSquaresSolver)
    fn = residuals if least_squares else _energy
    solve: Any = optimistix.least_squares if least_squares else optimistix.minimise

    def one(xi: Y) -> Minima:
        solution = solve(
            fn, solver, xi, posterior, has_aux=not least_squares, max_steps=max_steps, throw=False
        )
        xi = solution.value
        energy, gradient = jax.value_and_grad(posterior.energy)(xi)
        converged = (solution.result == optimistix.RESULTS.successful) & jnp.isfinite(energy)
        gap = 0.5 * jnp.sum(gradient**2)
        return Minima(xi, energy, gap, converged, solution.stats["num_steps"], solution.result)

    return eqx.filter_vmap(one)(starts)
