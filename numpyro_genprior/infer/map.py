"""`find_map`: the modes of a posterior, from many starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from tqdm.auto import tqdm

from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.map_result import SHOWN, MAPEstimate, Starts
from numpyro_genprior.infer.mode_clustering import Mode, group
from numpyro_genprior.infer.optimize import minimise
from numpyro_genprior.infer.posterior import Posterior


def find_map(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    num_starts: int = 16,
    method: str | None = None,
    max_steps: int = 200,
    tolerance: float = 1e-3,
    unconstrained: bool = False,
    progress_bar: bool = True,
    **kwargs: Any,
) -> MAPEstimate:
    """Find the modes of a model's posterior, from prior draws as starts, all at once.

    The mode is that of the density of standard normal coordinates ξ (see
    `numpyro_genprior.infer.coordinates`): under a decoder the mode in latent space, ``argmin
    |z|²/2 - log p(y | g(z))``.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density.
    key
        Random key, for the starts.
    args, kwargs
        The model's arguments. Keywords of the names below do not reach it.
    num_starts
        Number of starts. Where a `VAEPrior` among the arguments has an encoder, and the data the
        shape of its event, the first start is the encoder's guess.
    method
        ``"lm"`` (Levenberg-Marquardt in the Fisher metric) or ``"lbfgs"``. None: ``"lm"`` where
        the Fisher information of every observed law is known, otherwise ``"lbfgs"``.
    max_steps
        Most steps of each start.
    tolerance
        In nats: a start has converged when its energy is less than this above the minimum by the
        local quadratic, or ten steps lowered it by less.
    unconstrained
        NumPyro's unconstrained coordinates for sites that are not `StandardNormal`, as its
        autoguides have. Moves the modes.
    progress_bar
        Show one while it runs.

    Returns
    -------
    MAPEstimate
        ``.values``, ``.energy`` and ``.xi`` of the best mode, ``.modes``, ``.starts``.

    Raises
    ------
    ValueError
        When no start has a finite energy; for discrete, masked, scaled or subsampled latent sites,
        by name; for an unknown method.

    Warns
    -----
    UserWarning
        When other modes lie within 3 nats of the best.
    RuntimeWarning
        When starts did not converge, or had energies that are not finite.

    Notes
    -----
    Two starts found one mode when the energy on the line between their ends rises by no more than
    2 nats above the higher end, see `numpyro_genprior.infer.mode_clustering`. Starts that did not
    converge
    count for no mode, unless one of them is the lowest of all.

    **Fails when** there are many more modes than starts: the best may be missing. The mode of a
    posterior in many dimensions is no typical draw, and says nothing of uncertainty.

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
    >>> find_map(model, jax.random.key(0), jnp.array(2.0), progress_bar=False)
    MAP of 1 coordinate from 16 starts, by Levenberg-Marquardt: energy 2.74 nats.
    1 mode:
      energy 2.74, 16 starts (100%)
    16 of 16 converged, in ... steps at most.
    Where a mode lies depends on the coordinates. These are standard normal under the prior.
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
    posterior = Posterior(model, args, kwargs, unconstrained=unconstrained)
    method = (
        minimise.default_method(posterior)[0] if method is None else minimise.check_method(method)
    )
    drawn = _draw(posterior, key, num_starts)
    at = _descend(posterior, drawn[0], method, max_steps, tolerance, progress_bar)
    longer = "pass a larger max_steps, or a larger tolerance"
    return summarise(posterior, drawn, at, method, max_steps, longer)


def summarise(
    posterior: Posterior,
    drawn: tuple[jax.Array, int],
    at: minimise.Minima,
    method: str,
    max_steps: int,
    longer: str,
) -> MAPEstimate:
    """Distinct modes of finished descents, with the warnings that they deserve.

    `drawn` and `at` are what `draw_starts` and `minimise` returned; `longer` says how a user gives
    descents more steps.
    """
    initial, num_encoded = drawn
    starts = Starts(
        initial=initial,
        xi=at.xi,
        energy=np.asarray(at.energy, float),
        gap=np.asarray(at.gap, float),
        converged=np.asarray(at.converged),
        num_steps=np.asarray(at.num_steps),
        num_encoded=int(num_encoded),
    )
    _refuse_nowhere(starts)
    estimate = MAPEstimate(posterior, _modes(posterior, starts), starts, method)
    _warn_of_starts(starts, max_steps, longer)
    _warn_of_modes(estimate)
    return estimate


_draw = eqx.filter_jit(draw_starts)
_begin = eqx.filter_jit(minimise.begin)
_advance = eqx.filter_jit(minimise.advance)


def _descend(
    posterior: Posterior, starts: Any, method: str, max_steps: int, tolerance: float, show: bool
) -> minimise.Minima:
    """`minimise.minimise` step by step.

    A loop of Python, and not ``lax.while_loop``: on CPU a convolution in a compiled loop runs about
    ten times slower.
    """
    state = _begin(posterior, starts, method)
    limit = np.asarray(tolerance, starts.dtype)
    with tqdm(total=max_steps, desc="MAP", disable=not show) as bar:
        for _ in range(max_steps):
            going = int(minimise.active(state.at).sum())
            if not going:
                break
            bar.set_postfix(energy=f"{_lowest(state.at.energy):.2f}", going=going)
            state = _advance(posterior, state, limit, method)
            bar.update()
    return state.at


def _lowest(energy: jax.Array) -> float:
    return float(np.min(np.where(np.isfinite(energy), energy, np.inf)))


def _modes(posterior: Posterior, starts: Starts) -> tuple[Mode, ...]:
    counts = starts.converged & starts.finite
    counts[np.argmin(np.where(starts.finite, starts.energy, np.inf))] = True
    rows = np.flatnonzero(counts)
    modes = []
    for members in group(posterior, starts.xi[rows], starts.energy[rows]):
        indices = tuple(int(rows[i]) for i in members)
        best = indices[0]
        xi = starts.xi[best]
        share = len(indices) / len(starts)
        modes.append(Mode(xi, _values(posterior, xi), float(starts.energy[best]), share, indices))
    return tuple(modes)


@eqx.filter_jit
def _values(posterior: Posterior, xi: jax.Array) -> dict[str, jax.Array]:
    return posterior.values(xi)


def _refuse_nowhere(starts: Starts) -> None:
    if not starts.finite.any():
        raise ValueError(
            message(
                f"The energy is not finite at any of {len(starts)} starts",
                expected="a finite log density at draws from the prior",
                got=f"energies {np.unique(starts.energy)}",
                remedy="look for NaN in the data, for data outside the support of their law, and "
                "for scales that become 0 or infinite",
            )
        )


def _warn_of_starts(starts: Starts, max_steps: int, longer: str) -> None:
    short = int((starts.finite & ~starts.converged).sum())
    if short:
        _warn(
            f"{short} of {len(starts)} starts did not converge in {max_steps} steps",
            longer,
        )
    wild = int((~starts.finite).sum())
    if wild:
        _warn(
            f"{wild} of {len(starts)} starts have an energy that is not finite, and were left out",
            "look for parameters whose likelihood overflows at draws from the prior",
        )


def _warn(what: str, remedy: str) -> None:
    warnings.warn(message(what, remedy=remedy), RuntimeWarning, stacklevel=5)


def _warn_of_modes(estimate: MAPEstimate) -> None:
    if len(estimate.close) < 2:
        return
    listed = ", ".join(f"{m.energy:.2f} ({m.share:.0%} of starts)" for m in estimate.close[:SHOWN])
    more = "" if len(estimate.close) <= SHOWN else f" and {len(estimate.close) - SHOWN} more"
    warnings.warn(
        message(
            f"{len(estimate.close)} distinct modes lie within 3 nats: energies {listed}{more}",
            remedy="take none of them for the answer: sample with ParallelTempering or SMC, which "
            "weigh modes by their probability, or add data that tell them apart",
        ),
        UserWarning,
        stacklevel=4,
    )
