"""`EllipticalSlice`: gradient-free sampling under a standard normal prior, as a NumPyro kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior import validation
from numpyro_genprior.infer.base_kernel import PureKernel, split_sites
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
        Minus the log joint density at `z`.
    num_shrinks
        How often the bracket of the last draw was shrunk: one less than its number of likelihood
        evaluations.
    mean_num_shrinks
        Mean of `num_shrinks`, over warm-up or, after it, over the draws that are kept.
    num_stuck
        Number of draws, over the same period, that did not move because the bracket had been
        shrunk `max_shrinks` times.
    num_nonfinite
        Number of log likelihoods, over the same period, that were NaN or +∞ and were rejected.
    xi, log_likelihood
        Flat coordinates ``(size,)`` and the log likelihood there.
    num_warmup, rng_key
        Number of warm-up draws, and the key.
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


class _Proposal(NamedTuple):
    """A point on the ellipse, and the bracket of angles to draw the next one from."""

    theta_min: jax.Array
    theta_max: jax.Array
    xi: jax.Array
    log_likelihood: jax.Array
    accepted: jax.Array
    num_shrinks: jax.Array
    num_nonfinite: jax.Array
    rng_key: jax.Array


class EllipticalSlice(PureKernel):
    """Elliptical slice sampling: no gradient, no step size, warm-up only to reach the posterior.

    For forward models that can be evaluated but not differentiated, such as external programs
    called through ``jax.pure_callback``. Each draw moves along the ellipse through the current
    point and a draw from the prior, and shrinks towards the current point until the likelihood
    exceeds a random threshold.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density. All of its latent sites need standard normal coordinates, see
        `numpyro_genprior.infer.coordinates`.
    max_shrinks
        Largest number of times that the bracket is shrunk for one draw. After that the draw
        stays at the current point, which leaves the posterior invariant, and is counted in
        ``num_stuck``. Each time, the bracket shrinks by about a third.

    Raises
    ------
    ValueError
        If `max_shrinks` is not positive; at `init`, if a site has no standard normal coordinates.

    Notes
    -----
    With ``chain_method="vectorized"``, chains shrink together: each draw costs every chain as many
    evaluations as the slowest one needs. `get_samples` runs the model once more per draw, for the
    deterministic sites; a callback that only the likelihood uses is not called again.
    Ask for ``extra_fields=("num_stuck", "num_nonfinite")`` to see these counts.

    **Fails when** the data determine many coordinates: draws then move little, and the effective
    sample size falls with the number of coordinates that the data determine.

    **Source.** I. Murray, R. P. Adams & D. J. C. MacKay, "Elliptical slice sampling", AISTATS
    2010, figure 2.

    Examples
    --------
    A forward model that JAX cannot trace:

    >>> import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_genprior.infer import EllipticalSlice
    >>> def program(x):
    ...     return np.asarray(3 * x, np.float32)  # any NumPy code or subprocess
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
        validation.at_least("EllipticalSlice", 1, max_shrinks=max_shrinks)
        self._max_shrinks = max_shrinks

    def init_state(
        self, posterior: Posterior, key: jax.Array, num_warmup: int, xi: jax.Array | None = None
    ) -> EllipticalSliceState:
        """The first state: at a draw from the prior, or at `xi`."""
        key, draw_key = jax.random.split(key)
        xi = posterior.draw(draw_key) if xi is None else xi
        log_likelihood, _ = _log_likelihood(posterior, xi)
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
        return _with_sites(posterior, state)

    def step(self, posterior: Posterior, state: EllipticalSliceState) -> EllipticalSliceState:
        """One draw; the step numbers are those of the paper."""
        key, nu_key, slice_key, theta_key, shrink_key = jax.random.split(state.rng_key, 5)
        dtype = state.xi.dtype
        # Step 1: choose an ellipse, through xi and a draw from the prior.
        nu = jax.random.normal(nu_key, state.xi.shape, dtype)
        # Step 2: choose a log-likelihood threshold; -log(u) is exponential for uniform u.
        log_y = state.log_likelihood - jax.random.exponential(slice_key, (), dtype)
        # Step 3: draw an initial angle, which is also an end of the bracket.
        theta = 2 * np.pi * jax.random.uniform(theta_key, (), dtype)

        def propose(theta: jax.Array, previous: _Proposal) -> _Proposal:
            # Step 4: the point of the ellipse at theta.
            xi = jnp.cos(theta) * state.xi + jnp.sin(theta) * nu
            log_likelihood, is_nonfinite = _log_likelihood(posterior, xi)
            return previous._replace(
                # Step 8: shrink the bracket towards the current point, at theta = 0.
                theta_min=jnp.where(theta < 0, theta, previous.theta_min),
                theta_max=jnp.where(theta < 0, previous.theta_max, theta),
                xi=xi,
                log_likelihood=log_likelihood,
                accepted=log_likelihood > log_y,  # Steps 5 and 6
                num_nonfinite=previous.num_nonfinite + is_nonfinite,
            )

        def shrink(previous: _Proposal) -> _Proposal:
            # Steps 9 and 10: draw a new angle from the bracket, and go to step 4.
            next_key, theta_key = jax.random.split(previous.rng_key)
            uniform = jax.random.uniform(theta_key, (), dtype)
            theta = previous.theta_min + (previous.theta_max - previous.theta_min) * uniform
            previous = previous._replace(rng_key=next_key, num_shrinks=previous.num_shrinks + 1)
            return propose(theta, previous)

        def is_rejected(proposal: _Proposal) -> jax.Array:
            return ~proposal.accepted & (proposal.num_shrinks < self._max_shrinks)

        zero = jnp.zeros((), int)
        start = _Proposal(
            theta_min=theta - 2 * np.pi,
            theta_max=theta,
            xi=state.xi,
            log_likelihood=jnp.zeros((), dtype),
            accepted=jnp.asarray(False),
            num_shrinks=zero,
            num_nonfinite=zero,
            rng_key=shrink_key,
        )
        proposal = jax.lax.while_loop(is_rejected, shrink, propose(theta, start))
        return _with_sites(posterior, _accept(state, proposal)._replace(rng_key=key))

    @property
    def default_fields(self) -> tuple[str, ...]:
        return ("z", "potential_energy", "num_shrinks")

    def get_diagnostics_str(self, state: EllipticalSliceState) -> str:
        """One line for the progress bar."""
        text = f"{state.mean_num_shrinks + 1:.1f} evaluations per draw"
        if state.num_stuck:
            text += f", {state.num_stuck} stuck"
        if state.num_nonfinite:
            text += f", {state.num_nonfinite} not finite"
        return text


def _log_likelihood(posterior: Posterior, xi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log likelihood, -∞ in place of NaN and +∞, and whether it was one of these."""
    log_likelihood = posterior.log_likelihood(xi)
    is_nonfinite = jnp.isnan(log_likelihood) | (log_likelihood == jnp.inf)
    return jnp.where(is_nonfinite, -jnp.inf, log_likelihood), is_nonfinite


def _accept(state: EllipticalSliceState, proposal: _Proposal) -> EllipticalSliceState:
    """Move to the proposal if it was accepted, and update the counts."""
    accepted, num_shrinks = proposal.accepted, proposal.num_shrinks
    count = jnp.where(state.i < state.num_warmup, state.i, state.i - state.num_warmup)
    is_first = count == 0  # draw of warm-up, or after it: the counts start again
    mean = jnp.where(is_first, 0, state.mean_num_shrinks)
    return state._replace(
        i=state.i + 1,
        num_shrinks=num_shrinks,
        mean_num_shrinks=mean + (num_shrinks - mean) / (count + 1),
        num_stuck=jnp.where(is_first, 0, state.num_stuck) + ~accepted,
        num_nonfinite=jnp.where(is_first, 0, state.num_nonfinite) + proposal.num_nonfinite,
        xi=jnp.where(accepted, proposal.xi, state.xi),
        log_likelihood=jnp.where(accepted, proposal.log_likelihood, state.log_likelihood),
    )


def _with_sites(posterior: Posterior, state: EllipticalSliceState) -> EllipticalSliceState:
    """The state with `z` and `potential_energy` at its coordinates."""
    return state._replace(
        z=split_sites(posterior.layout, state.xi),
        potential_energy=-posterior.log_prior(state.xi) - state.log_likelihood,
    )
