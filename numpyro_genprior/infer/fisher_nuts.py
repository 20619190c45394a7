"""`FisherNUTS` and `FisherHMC`: NumPyro's samplers in coordinates whitened at a mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.transforms import Transform
from numpyro.infer.hmc import HMCState, hmc
from numpyro.util import is_prng_key

from numpyro_genprior.errors import message
from numpyro_genprior.infer.base_kernel import FlatKernel, split_sites
from numpyro_genprior.infer.initialization import WarmStart, find_warm_start, from_estimate
from numpyro_genprior.infer.map_result import MAPEstimate
from numpyro_genprior.infer.posterior import Posterior

DISPERSION = 1.5  # of a chain's start, in posterior standard deviations


class FisherState(NamedTuple):
    """The state of a chain, or of several.

    Attributes
    ----------
    z
        Coordinates by site: standard normal under the prior, and not whitened by the data.
    hmc
        NumPyro's ``HMCState``, in whitened coordinates.
    start
        The modes and the whitening; one for all chains.
    rng_key
        Random key.
    """

    z: dict[str, jax.Array]
    hmc: HMCState
    start: WarmStart
    rng_key: PRNGKeyArray

    # Fields that users of NumPyro's kernels name in extra_fields.
    i = property(lambda self: self.hmc.i)
    potential_energy = property(lambda self: self.hmc.potential_energy)
    energy = property(lambda self: self.hmc.energy)
    num_steps = property(lambda self: self.hmc.num_steps)
    accept_prob = property(lambda self: self.hmc.accept_prob)
    mean_accept_prob = property(lambda self: self.hmc.mean_accept_prob)
    diverging = property(lambda self: self.hmc.diverging)
    adapt_state = property(lambda self: self.hmc.adapt_state)


class _FisherKernel(FlatKernel):
    """Base of `FisherNUTS` and `FisherHMC`, which set the algorithm and the trajectory length."""

    def __init__(
        self,
        model: Callable[..., Any],
        algorithm: str,
        length: Mapping[str, Any],
        *,
        estimate: MAPEstimate | None,
        key: PRNGKeyArray | None,
        rank: int | None,
        num_starts: int,
        **settings: Any,
    ) -> None:
        super().__init__(model)
        if estimate is not None and not isinstance(estimate, MAPEstimate):
            raise TypeError(
                message(
                    f"{type(self).__name__}: estimate= is what find_map returns",
                    expected="a MAPEstimate, or None for a search",
                    got=f"a {type(estimate).__name__}",
                    remedy="pass estimate=find_map(model, key, ...)",
                )
            )
        self.estimate = self._given_estimate = estimate
        self._algorithm = algorithm
        self._key, self._rank, self._num_starts = key, rank, num_starts
        self._settings = {**length, **settings}  # as NumPyro's ``hmc`` names them
        self._sample_fn: Any = None  # None tells MCMC that init has not run

    def init(
        self,
        rng_key: PRNGKeyArray,
        num_warmup: int,
        init_params: Mapping[str, jax.Array] | None = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> FisherState:
        posterior = self.posterior(model_args, model_kwargs)
        start = self._find_start(posterior)
        values = None if init_params is None else dict(init_params)
        if is_prng_key(rng_key):
            xi = None if values is None else posterior.coordinates(values)
            return self._init_chain(posterior, start, rng_key, num_warmup, xi)

        def one(key: PRNGKeyArray, xi: jax.Array | None) -> FisherState:
            return self._init_chain(posterior, start, key, num_warmup, xi)

        xi = None if values is None else jax.vmap(posterior.coordinates)(values)
        return jax.vmap(one, out_axes=BATCHED)(rng_key, xi)

    def sample(
        self,
        state: FisherState,
        model_args: tuple[Any, ...],
        model_kwargs: Mapping[str, Any] | None,
    ) -> FisherState:
        posterior = self.posterior(model_args, model_kwargs)
        if is_prng_key(state.rng_key):
            return self._step(posterior, state)
        step = jax.vmap(self._step, in_axes=(None, BATCHED), out_axes=BATCHED)
        return step(posterior, state)

    def _step(self, posterior: Posterior, state: FisherState) -> FisherState:
        inner = state.hmc._replace(rng_key=state.rng_key)
        inner = self._sample_fn(inner, (posterior, state.start.transform), {})
        return _in_site_coordinates(posterior, state.start, inner)

    def get_diagnostics_str(self, state: FisherState) -> str:
        return (
            f"{state.num_steps} steps of size {state.adapt_state.step_size:.2e}. "
            f"acc. prob={state.mean_accept_prob:.2f}"
        )

    @property
    def default_fields(self) -> tuple[str, ...]:
        return ("z", "diverging")

    def _find_start(self, posterior: Posterior) -> WarmStart:
        """Modes and whitening, the same for all chains."""
        if self._given_estimate is not None:
            return from_estimate(self._given_estimate, posterior, rank=self._rank)
        start, self.estimate = find_warm_start(
            posterior, self._key, num_starts=self._num_starts, rank=self._rank
        )
        return start

    def _init_chain(
        self,
        posterior: Posterior,
        start: WarmStart,
        key: PRNGKeyArray,
        num_warmup: int,
        xi: Float[Array, " latent"] | None,
    ) -> FisherState:
        """The state of one chain before its first step."""
        start_key, hmc_key = jax.random.split(key)
        init, self._sample_fn = hmc(potential_fn_gen=_potential, algo=self._algorithm)
        xi = _draw(start, posterior, start_key) if xi is None else xi
        inner = init(
            start.transform.inv(xi),
            num_warmup=num_warmup,
            model_args=(posterior, start.transform),
            model_kwargs={},
            rng_key=hmc_key,
            **self._settings,
        )
        return _in_site_coordinates(posterior, start, inner)


# In a state of several chains, `start` is shared by all of them.
BATCHED: Any = FisherState(0, 0, None, 0)  # pyright: ignore[reportArgumentType]


def _in_site_coordinates(posterior: Posterior, start: WarmStart, inner: HMCState) -> FisherState:
    sites = split_sites(posterior.layout, jnp.asarray(start.transform(inner.z)))
    return FisherState(sites, inner, start, inner.rng_key)


# Compiled as one program: outside of a loop each operation would be compiled separately.
@eqx.filter_jit
def _draw(start: WarmStart, posterior: Posterior, key: PRNGKeyArray) -> jax.Array:
    return start.draw(posterior, key, DISPERSION)


@eqx.filter_jit
def _energy(posterior: Posterior, transform: Transform, whitened: jax.Array) -> jax.Array:
    return posterior.energy(jnp.asarray(transform(whitened)))


def _potential(posterior: Posterior, transform: Transform) -> Callable[[jax.Array], jax.Array]:
    return lambda whitened: _energy(posterior, transform, whitened)


class FisherNUTS(_FisherKernel):
    """The no-U-turn sampler in coordinates whitened by the Fisher information at a mode.

    ``MCMC(FisherNUTS(model), num_warmup=200, num_samples=1000).run(key, *args)`` finds the modes
    of the posterior from several prior draws, whitens it at the best one with the precision
    ``prior + JᵀFJ``, starts each chain at an over-dispersed draw from the Gaussian at one of the
    modes, and continues as NumPyro's NUTS, which adapts a step size and a diagonal mass matrix.
    Whitening is an affine change of coordinates: the sampler is exact, whatever the estimate.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density.
    estimate
        The result of `find_map`, for the same model. None: modes are searched for when the chains
        are initialised.
    key
        Random key of that search, which is shared by all chains. None: a fixed one.
    rank
        Of the whitening, see `fisher_whitening`. None: dense up to 1024 coordinates.
    num_starts
        Number of starts of the search.
    step_size, target_accept_prob, max_tree_depth, dense_mass, adapt_mass_matrix
        As for NumPyro's NUTS, in whitened coordinates.

    Attributes
    ----------
    estimate
        After a run: what the search found (None if the data were traced).

    Raises
    ------
    TypeError
        If `estimate` is not what `find_map` returns.
    ValueError
        If a latent site is discrete, masked, scaled or subsampled, or the Fisher information of an
        observed distribution is not known; by name.

    Warns
    -----
    UserWarning
        If other modes lie within 3 nats of the best.

    Notes
    -----
    **Density** exact: the target is the posterior.

    **Fails when** modes are separated: chains stay where they start, and the fraction of chains in
    a mode says nothing about its weight. `numpyro_genprior.diagnostics.modes` shows it, and
    `ParallelTempering` samples such posteriors. If the curvature in the tails differs much from
    that at the mode, whitening helps less.

    References
    ----------
    Hoffman, Gelman, The no-U-turn sampler, JMLR 2014. Girolami, Calderhead, Riemann manifold
    Langevin and Hamiltonian Monte Carlo methods, JRSS B 2011 (the metric).

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(y):
    ...     x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.tile(z, 2), 2))
    ...     numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)
    >>> kernel = ngp.infer.FisherNUTS(model)
    >>> mcmc = numpyro.infer.MCMC(kernel, num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.ones(4))
    >>> {name: x.shape for name, x in mcmc.get_samples().items()}
    {'x': (50, 4), 'x_latent': (50, 2)}
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        estimate: MAPEstimate | None = None,
        key: PRNGKeyArray | None = None,
        rank: int | None = None,
        num_starts: int = 8,
        step_size: float = 1.0,
        target_accept_prob: float = 0.8,
        max_tree_depth: int | tuple[int, int] = 10,
        dense_mass: bool = False,
        adapt_mass_matrix: bool = True,
    ) -> None:
        super().__init__(
            model,
            "NUTS",
            {"max_tree_depth": max_tree_depth},
            estimate=estimate,
            key=key,
            rank=rank,
            num_starts=num_starts,
            step_size=step_size,
            target_accept_prob=target_accept_prob,
            dense_mass=dense_mass,
            adapt_mass_matrix=adapt_mass_matrix,
        )


class FisherHMC(_FisherKernel):
    """Hamiltonian Monte Carlo in coordinates whitened by the Fisher information at a mode.

    As `FisherNUTS`, with trajectories of one fixed length, so that many chains advance in step:
    vectorized NUTS waits for the longest tree of all chains.

    Parameters
    ----------
    model, estimate, key, rank, num_starts
        As for `FisherNUTS`.
    trajectory_length
        In whitened coordinates, where a Gaussian posterior has frequency 1: after a quarter turn,
        π/2, the end is independent of the start.
    num_steps
        A fixed number of steps instead of a length.
    step_size, target_accept_prob, dense_mass, adapt_mass_matrix
        As for NumPyro's HMC, in whitened coordinates.

    Attributes
    ----------
    estimate
        As for `FisherNUTS`.

    Raises
    ------
    ValueError
        As for `FisherNUTS`, and if both a length and a number of steps are given.

    Notes
    -----
    **Density** exact: the target is the posterior.

    **Fails when** the posterior is far from Gaussian: no single length then suits all directions,
    and `FisherNUTS` is safer.

    References
    ----------
    Neal, MCMC using Hamiltonian dynamics, 2011.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        trajectory_length: float | None = None,
        num_steps: int | None = None,
        estimate: MAPEstimate | None = None,
        key: PRNGKeyArray | None = None,
        rank: int | None = None,
        num_starts: int = 8,
        step_size: float = 1.0,
        target_accept_prob: float = 0.8,
        dense_mass: bool = False,
        adapt_mass_matrix: bool = True,
    ) -> None:
        if trajectory_length is not None and num_steps is not None:
            raise ValueError(
                message(
                    "FisherHMC needs one trajectory length",
                    expected="trajectory_length or num_steps",
                    got="both",
                    remedy="give trajectory_length or num_steps, not both",
                )
            )
        if trajectory_length is None and num_steps is None:
            trajectory_length = math.pi / 2
        super().__init__(
            model,
            "HMC",
            {"trajectory_length": trajectory_length, "num_steps": num_steps},
            estimate=estimate,
            key=key,
            rank=rank,
            num_starts=num_starts,
            step_size=step_size,
            target_accept_prob=target_accept_prob,
            dense_mass=dense_mass,
            adapt_mass_matrix=adapt_mass_matrix,
        )
