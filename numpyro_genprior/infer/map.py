"""`find_map`: the modes of a posterior, from many starts."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optimistix
from tqdm.auto import tqdm

from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.map_result import MAPEstimate, Starts
from numpyro_genprior.infer.mode_clustering import Mode, group
from numpyro_genprior.infer.optimize import minimise
from numpyro_genprior.infer.optimize.minimiser import AbstractModeFinder
from numpyro_genprior.infer.optimize.residuals import check_residuals
from numpyro_genprior.infer.posterior import Posterior, site_values

STEPS_PER_UPDATE = 5  # in one compiled loop, between two updates of the progress bar


def find_map(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    num_starts: int = 16,
    solver: minimise.Solver | None = None,
    max_steps: int = 200,
    unconstrained: bool = False,
    progress_bar: bool = True,
    **kwargs: Any,
) -> MAPEstimate:
    """Find the modes of a model's posterior, by minimisations that start from prior draws.

    The mode is that of the density of standard normal coordinates ξ (see
    `numpyro_genprior.infer.coordinates`): under a decoder the mode in latent space, ``argmin
    |z|²/2 - log p(y | g(z))``.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density.
    key
        Random key, for the starts.
    args, kwargs
        The model's arguments. Keywords of the names below are not passed to it.
    num_starts
        Number of starts. Where a `VAEPrior` among the arguments has an encoder, and the data have
        the shape of its event, the first start is the encoder's output.
    solver
        How the energy, minus the log joint density, is minimised, and how precisely:
        `LevenbergMarquardt`, `LBFGS` (both with a tolerance of 1e-3 nats by default), any minimiser
        of optimistix, as ``optimistix.BFGS(rtol=1e-6, atol=1e-6)``, or any of its least-squares
        solvers, as ``optimistix.Dogleg(rtol=1e-6, atol=1e-6)``. The latter are given the residuals
        of `numpyro_genprior.infer.optimize.residuals`, which Gaussian observations of fixed
        covariance have. None: ``LevenbergMarquardt()`` where the Fisher information of every
        observed distribution is known, otherwise ``LBFGS()``.
    max_steps
        Maximum number of steps of each start.
    unconstrained
        Use NumPyro's unconstrained coordinates for sites that are not `StandardNormal`, as its
        autoguides do. This moves the modes.
    progress_bar
        Whether to show a progress bar (not for optimistix's solvers).

    Returns
    -------
    MAPEstimate
        ``.values``, ``.energy`` and ``.xi`` of the best mode, ``.modes``, ``.starts``.

    Raises
    ------
    TypeError
        If `solver` is not a solver.
    ValueError
        If no start has a finite energy; if a latent site is discrete, masked, scaled or subsampled,
        by name; if `solver` needs the Fisher information or the residuals of an observed
        distribution that has none, by name.

    Warns
    -----
    UserWarning
        If other modes lie within 3 nats of the best.
    RuntimeWarning
        If starts did not converge, or if energies are not finite.

    Notes
    -----
    Two starts found one mode if the energy on the line between their ends rises by no more than
    2 nats above the higher end, see `numpyro_genprior.infer.mode_clustering`. Starts that did not
    converge are not assigned to a mode, unless one of them is the lowest of all.

    **Fails when** there are many more modes than starts: the best may be missing. The mode of a
    posterior in many dimensions is not a typical draw, and says nothing about uncertainty.

    References
    ----------
    Bora, Jalal, Price, Dimakis, Compressed sensing using generative models, ICML 2017 (the mode
    in latent space). Nocedal, Wright, Numerical optimization, 2006, chapters 7 and 10.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_genprior.infer import find_map
    >>> def model(y):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(z + 0.1 * z**2, 1.0), obs=y)
    >>> print(find_map(model, jax.random.key(0), jnp.array(2.0), progress_bar=False))
    MAP of 1 coordinate from 16 starts, by LevenbergMarquardt: energy 2.74 nats.
    1 mode:
      energy 2.74, 16 starts (100%)
    16 of 16 converged, in ... steps at most.
    The location of a mode depends on the coordinates. These are standard normal under the prior.
    """
    if num_starts < 1:
        raise ValueError(
            message(
                "find_map needs a start",
                expected="num_starts of at least 1",
                got=num_starts,
                remedy="pass num_starts=16",
            )
        )
    if solver is not None:
        minimise.check_solver(solver)
    posterior = Posterior(model, args, kwargs, unconstrained=unconstrained)
    if solver is None:
        solver = minimise.default_solver(posterior)
    if isinstance(solver, optimistix.AbstractLeastSquaresSolver):
        check_residuals(posterior)
    draws = _draw(posterior, key, num_starts)
    if isinstance(solver, AbstractModeFinder):
        found = _minimise(posterior, draws[0], solver, max_steps, progress_bar)
    else:
        found = _minimise_at_once(posterior, draws[0], solver, max_steps=max_steps)
    remedy = "pass a larger max_steps, or a solver with a larger tolerance"
    return summarise(posterior, draws, found, solver, remedy)


def summarise(
    posterior: Posterior,
    draws: tuple[jax.Array, int],
    minima: minimise.Minima,
    solver: minimise.Solver,
    remedy: str,
) -> MAPEstimate:
    """Group the ends of minimisations into distinct modes, and issue the estimate's warnings.

    Parameters
    ----------
    posterior, solver
        The posterior, and the solver that was used.
    draws, minima
        What `draw_starts` and `minimise` returned.
    remedy
        How a user can give minimisations more steps, for the warnings.
    """
    initial, num_encoded = draws
    starts = Starts(
        initial=initial,
        xi=minima.xi,
        energy=np.asarray(minima.energy, float),
        gap=np.asarray(minima.gap, float),
        converged=np.asarray(minima.converged),
        num_steps=np.asarray(minima.num_steps),
        num_encoded=int(num_encoded),
        reasons=_reasons(minima),
    )
    _require_finite_energy(starts)
    estimate = MAPEstimate(posterior, _modes(posterior, starts), starts, solver, remedy)
    for category, warning in estimate.categorised_warnings():
        warnings.warn(warning, category, stacklevel=3)
    return estimate


_draw = eqx.filter_jit(draw_starts)
_begin = eqx.filter_jit(minimise.begin)
_advance = eqx.filter_jit(minimise.advance)
_minimise_at_once = eqx.filter_jit(minimise.minimise)


def _minimise(
    posterior: Posterior,
    starts: jax.Array,
    solver: AbstractModeFinder,
    max_steps: int,
    progress_bar: bool,
) -> minimise.Minima:
    """`minimise.minimise`, a few steps at a time."""
    iteration, done = _begin(posterior, starts, solver), 0
    with tqdm(total=max_steps, desc="MAP", disable=not progress_bar) as bar:
        while done < max_steps and (active := int(iteration.active.sum())):
            energy = np.asarray(iteration.state.progress.energy)
            bar.set_postfix(
                energy=f"{np.min(energy, where=np.isfinite(energy), initial=np.inf):.2f}",
                active=active,
            )
            num_steps = min(STEPS_PER_UPDATE, max_steps - done)
            iteration = _advance(posterior, iteration, solver, np.asarray(num_steps))
            done += num_steps
            bar.update(num_steps)
    return minimise.minima(iteration)


def _reasons(minima: minimise.Minima) -> tuple[str, ...]:
    """Why each minimisation stopped, in optimistix's words; empty for those that converged."""
    results = [jax.tree.map(operator.itemgetter(i), minima.result) for i in range(len(minima.xi))]
    return tuple(optimistix.RESULTS[result] for result in results)


def _modes(posterior: Posterior, starts: Starts) -> tuple[Mode, ...]:
    counts = starts.converged & starts.finite
    counts[int(minimise.lowest(starts.energy))] = True
    rows = np.flatnonzero(counts)
    modes = []
    for members in group(posterior, starts.xi[rows], starts.energy[rows]):
        indices = tuple(int(rows[i]) for i in members)
        best = indices[0]
        xi = starts.xi[best]
        share = len(indices) / len(starts)
        energy = float(starts.energy[best])
        modes.append(Mode(xi, site_values(posterior, xi), energy, share, indices))
    return tuple(modes)


def _require_finite_energy(starts: Starts) -> None:
    if not starts.finite.any():
        raise ValueError(
            message(
                f"The energy is not finite at any of {len(starts)} starts",
                expected="a finite log density at draws from the prior",
                got=f"energies {np.unique(starts.energy)}",
                remedy="look for NaN in the data, for data outside the support of their "
                "distribution, and for scales that become 0 or infinite",
            )
        )
