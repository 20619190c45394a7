"""`EllipticalSlice`: gradient-free sampling under a standard normal prior, as a NumPyro kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.infer.base_kernel import FlatKernel, split_sites
from numpyro_genprior.infer.posterior import Posterior


class EllipticalSliceState(NamedTuple):
    """State of a chain.

    Attributes
    ----------
    i
        Number of draws so far.
    z
        Coordinates by latent site.
    potential_energy
        Minus the log joint density there.
    num_shrinks
        How often the bracket of the last draw was shrunk: one less than its evaluations of the
        likelihood.
    mean_num_shrinks
        Their mean, since warm-up when that is over.
    num_stuck
        Number of draws, since warm-up when that is over, that stayed where they were because the
        bracket was shrunk as often as is allowed.
    num_nonfinite
        Number of log likelihoods that were NaN or +∞, which were rejected, since warm-up likewise.
    log_likelihood, num_warmup, rng_key
        Log likelihood at `z`, number of draws of warm-up, key.
    """

    i: jax.Array
    z: dict[str, jax.Array]
    potential_energy: jax.Array
    num_shrinks: jax.Array
    mean_num_shrinks: jax.Array
    num_stuck: jax.Array
    num_nonfinite: jax.Array
    xi: jax.Array
    log_likelihood: jax.Array
    num_warmup: jax.Array
    rng_key: jax.Array


class _Bracket(NamedTuple):
    low: jax.Array
    high: jax.Array
    xi: jax.Array
    log_likelihood: jax.Array
    inside: jax.Array
    shrinks: jax.Array
    nonfinite: jax.Array
    key: jax.Array


class EllipticalSlice(FlatKernel):
    """Elliptical slice sampling: no gradient, no step size, no warm-up but to forget the start.

    For forward models that can be evaluated and not differentiated, such as programs behind
    ``jax.pure_callback``. Each draw goes along an ellipse through the present point and a draw of
    the prior, and shrinks towards the present point until the likelihood is high enough.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density. All of its latent sites need standard normal coordinates, see
        `numpyro_genprior.infer.coordinates`.
    max_shrinks
        After so many, a draw stays where it is, which leaves the posterior invariant; it is
        counted. The bracket shrinks by about a third each time.

    Raises
    ------
    ValueError
        When `max_shrinks` is not positive; at `init`, when a site has no standard normal
        coordinates.

    Notes
    -----
    With ``chain_method="vectorized"``, chains shrink together: each draw costs all of them the
    evaluations of the slowest. `get_samples` runs the model once more for each draw only where a
    deterministic site needs it: a callback of which only the likelihood knows is not repeated.
    Ask for ``extra_fields=("num_stuck", "num_nonfinite")`` to see more of what was done.

    **Fails when** the data tell much about many coordinates: draws then move little, and their
    number of effective draws falls with the number of coordinates the data determine.

    **Source.** I. Murray, R. P. Adams & D. J. C. MacKay, "Elliptical slice sampling", AISTATS
    2010.

    Examples
    --------
    A program that JAX cannot see into:

    >>> import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_genprior.infer import EllipticalSlice
    >>> def program(x):
    ...     return np.asarray(3 * x, np.float32)  # any NumPy, file or subprocess
    >>> def forward(x):
    ...     shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    ...     return jax.pure_callback(program, shape, x, vmap_method="sequential")
    >>> def model(y):
    ...     x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    ...     numpyro.sample("y", dist.Normal(forward(x), 1.0).to_event(1), obs=y)
    >>> mcmc = MCMC(
    ...     EllipticalSlice(model),
    ...     num_warmup=100,
    ...     num_samples=1000,
    ...     num_chains=2,
    ...     chain_method="vectorized",
    ...     progress_bar=False,
    ... )
    >>> mcmc.run(jax.random.key(0), jnp.array([1.0, -2.0]))
    >>> mean = mcmc.get_samples()["x"].mean(0)  # exactly (0.3, -0.6)
    >>> bool(jnp.all(jnp.abs(mean - jnp.array([0.3, -0.6])) < 0.06))
    True
    """

    def __init__(self, model: Callable[..., Any], *, max_shrinks: int = 64) -> None:
        super().__init__(model)
        if max_shrinks < 1:
            raise ValueError(
                message(
                    "max_shrinks is too small",
                    expected="at least 1",
                    got=max_shrinks,
                    remedy="leave max_shrinks at its default, or give more",
                )
            )
        self._max_shrinks = max_shrinks

    def init_state(
        self, posterior: Posterior, key: jax.Array, num_warmup: int, xi: jax.Array | None = None
    ) -> EllipticalSliceState:
        """At a draw of the prior, or at `xi`."""
        key, draw_key = jax.random.split(key)
        xi = posterior.draw(draw_key) if xi is None else xi
        log_likelihood, _ = _evaluate(posterior, xi)
        zero = jnp.zeros((), int)
        state = EllipticalSliceState(
            i=zero,
            z={},
            potential_energy=log_likelihood,
            num_shrinks=zero,
            mean_num_shrinks=jnp.zeros((), xi.dtype),
            num_stuck=zero,
            num_nonfinite=zero,
            xi=xi,
            log_likelihood=log_likelihood,
            num_warmup=jnp.asarray(num_warmup),
            rng_key=key,
        )
        return _show(posterior, state)

    def step(self, posterior: Posterior, state: EllipticalSliceState) -> EllipticalSliceState:
        """One draw."""
        key, normal_key, height_key, angle_key, shrink_key = jax.random.split(state.rng_key, 5)
        other = jax.random.normal(normal_key, state.xi.shape, state.xi.dtype)
        height = state.log_likelihood - jax.random.exponential(height_key, (), state.xi.dtype)

        def at(angle: jax.Array, bracket: _Bracket) -> _Bracket:
            xi = jnp.cos(angle) * state.xi + jnp.sin(angle) * other
            log_likelihood, bad = _evaluate(posterior, xi)
            return bracket._replace(
                low=jnp.where(angle < 0, angle, bracket.low),
                high=jnp.where(angle < 0, bracket.high, angle),
                xi=xi,
                log_likelihood=log_likelihood,
                inside=log_likelihood > height,
                nonfinite=bracket.nonfinite + bad,
            )

        def shrink(bracket: _Bracket) -> _Bracket:
            key, angle_key = jax.random.split(bracket.key)
            uniform = jax.random.uniform(angle_key, (), state.xi.dtype)
            angle = bracket.low + (bracket.high - bracket.low) * uniform
            return at(angle, bracket._replace(key=key, shrinks=bracket.shrinks + 1))

        def outside(bracket: _Bracket) -> jax.Array:
            return ~bracket.inside & (bracket.shrinks < self._max_shrinks)

        angle = 2 * np.pi * jax.random.uniform(angle_key, (), state.xi.dtype)
        zero, height_ = jnp.zeros((), int), jnp.zeros((), state.xi.dtype)
        whole = _Bracket(
            angle - 2 * np.pi, angle, state.xi, height_, jnp.asarray(False), zero, zero, shrink_key
        )
        end = jax.lax.while_loop(outside, shrink, at(angle, whole))

        count = jnp.where(state.i < state.num_warmup, state.i, state.i - state.num_warmup)
        first = count == 0  # of warm-up, or of what comes after it
        before = jnp.where(first, 0, state.mean_num_shrinks)
        state = state._replace(
            i=state.i + 1,
            num_shrinks=end.shrinks,
            mean_num_shrinks=before + (end.shrinks - before) / (count + 1),
            num_stuck=jnp.where(first, 0, state.num_stuck) + ~end.inside,
            num_nonfinite=jnp.where(first, 0, state.num_nonfinite) + end.nonfinite,
            xi=jnp.where(end.inside, end.xi, state.xi),
            log_likelihood=jnp.where(end.inside, end.log_likelihood, state.log_likelihood),
            rng_key=key,
        )
        return _show(posterior, state)

    @property
    def default_fields(self) -> tuple[str, ...]:
        return (*super().default_fields, "num_shrinks")

    def get_diagnostics_str(self, state: EllipticalSliceState) -> str:
        text = f"{state.mean_num_shrinks + 1:.1f} evaluations a draw"
        if state.num_stuck:
            text += f", {state.num_stuck} stuck"
        if state.num_nonfinite:
            text += f", {state.num_nonfinite} not finite"
        return text


def _evaluate(posterior: Posterior, xi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log likelihood, -∞ where it is no number or +∞, and whether it is."""
    log_likelihood = posterior.log_likelihood(xi)
    bad = jnp.isnan(log_likelihood) | (log_likelihood == jnp.inf)
    return jnp.where(bad, -jnp.inf, log_likelihood), bad


def _show(posterior: Posterior, state: EllipticalSliceState) -> EllipticalSliceState:
    return state._replace(
        z=split_sites(posterior.layout, state.xi),
        potential_energy=-posterior.log_prior(state.xi) - state.log_likelihood,
    )
