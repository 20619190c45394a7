"""`FisherNUTS` and `FisherHMC`: NumPyro's samplers in coordinates that the data have whitened."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
from numpyro.infer.hmc import hmc
from numpyro.util import is_prng_key

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
    hmc: Any
    start: WarmStart
    rng_key: jax.Array

    # What users of NumPyro's kernels ask for by extra_fields.
    i = property(lambda self: self.hmc.i)
    potential_energy = property(lambda self: self.hmc.potential_energy)
    energy = property(lambda self: self.hmc.energy)
    num_steps = property(lambda self: self.hmc.num_steps)
    accept_prob = property(lambda self: self.hmc.accept_prob)
    mean_accept_prob = property(lambda self: self.hmc.mean_accept_prob)
    diverging = property(lambda self: self.hmc.diverging)
    adapt_state = property(lambda self: self.hmc.adapt_state)


class _FisherKernel(FlatKernel):
    """What the two kernels have in common: all but the name of the algorithm."""

    algorithm: str

    def __init__(
        self,
        model: Callable[..., Any],
        length: dict[str, Any],
        *,
        estimate: MAPEstimate | None,
        key: jax.Array | None,
        rank: int | None,
        num_starts: int,
        **settings: Any,
    ) -> None:
        super().__init__(model)
        self.estimate = self._given = estimate
        self._key, self._rank, self._num_starts = key, rank, num_starts
        self._settings = {**length, **settings}  # as NumPyro's ``hmc`` names them
        self._sample_fn: Any = None  # MCMC asks for this one to see whether init has run

    def check(self, posterior: Posterior) -> None:
        """Any model will do whose latent sites are continuous."""

    def init_state(
        self, posterior: Posterior, key: jax.Array, num_warmup: int, xi: jax.Array | None = None
    ) -> Any:
        return self._begin(posterior, self._find(posterior), key, num_warmup, xi)

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: dict[str, jax.Array] | None = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> FisherState:
        posterior = self.posterior(model_args, model_kwargs)
        start = self._find(posterior)
        xi = None
        if is_prng_key(rng_key):
            if init_params is not None:
                xi = posterior.coordinates(init_params)
            return self._begin(posterior, start, rng_key, num_warmup, xi)
        if init_params is not None:
            xi = jax.vmap(posterior.coordinates)(init_params)

        def one(key: jax.Array, xi: Any) -> FisherState:
            return self._begin(posterior, start, key, num_warmup, xi)

        state = jax.vmap(one, out_axes=FisherState(0, 0, None, 0))(rng_key, xi)  # pyright: ignore
        return state

    def sample(
        self, state: FisherState, model_args: tuple[Any, ...], model_kwargs: Any
    ) -> FisherState:
        posterior = self.posterior(model_args, model_kwargs)
        if is_prng_key(state.rng_key):
            return self.step(posterior, state)
        axes: Any = FisherState(0, 0, None, 0)  # pyright: ignore[reportArgumentType]
        return jax.vmap(self.step, in_axes=(None, axes), out_axes=axes)(posterior, state)

    def step(self, posterior: Posterior, state: FisherState) -> FisherState:
        inner = state.hmc._replace(rng_key=state.rng_key)
        inner = self._sample_fn(inner, (posterior, state.start.transform), {})
        return self._outer(posterior, state.start, inner)

    def get_diagnostics_str(self, state: FisherState) -> str:
        return (
            f"{state.num_steps} steps of size {state.adapt_state.step_size:.2e}. "
            f"acc. prob={state.mean_accept_prob:.2f}"
        )

    @property
    def default_fields(self) -> tuple[str, ...]:
        return ("z", "diverging")

    # ---- the pieces ------------------------------------------------------------------------------

    def _find(self, posterior: Posterior) -> WarmStart:
        """Modes and whitening, once for all chains and, where data are concrete, at once."""
        if self._given is not None:
            return from_estimate(self._given, posterior, rank=self._rank)
        start, self.estimate = find_warm_start(
            posterior, self._key, num_starts=self._num_starts, rank=self._rank
        )
        return start

    def _begin(
        self, posterior: Posterior, start: WarmStart, key: jax.Array, num_warmup: int, xi: Any
    ) -> FisherState:
        """The state of one chain before its first step."""
        start_key, hmc_key = jax.random.split(key)
        begin, self._sample_fn = hmc(potential_fn_gen=_potential, algo=self.algorithm)
        xi = _draw(start, posterior, start_key) if xi is None else xi
        inner = begin(
            start.transform._inverse(xi),
            num_warmup=num_warmup,
            model_args=(posterior, start.transform),
            model_kwargs={},
            rng_key=hmc_key,
            **self._settings,
        )
        return self._outer(posterior, start, inner)

    @staticmethod
    def _outer(posterior: Posterior, start: WarmStart, inner: Any) -> FisherState:
        sites = split_sites(posterior.layout, start.transform(inner.z))
        return FisherState(sites, inner, start, inner.rng_key)


# Compiled as one: chains start outside of any loop, where each operation would be compiled alone.
@eqx.filter_jit
def _draw(start: WarmStart, posterior: Posterior, key: jax.Array) -> jax.Array:
    return start.draw(posterior, key, DISPERSION)


@eqx.filter_jit
def _energy(posterior: Posterior, transform: Any, whitened: jax.Array) -> jax.Array:
    return posterior.energy(transform(whitened))


def _potential(posterior: Posterior, transform: Any) -> Callable[[jax.Array], jax.Array]:
    return lambda whitened: _energy(posterior, transform, whitened)


class FisherNUTS(_FisherKernel):
    """The no-U-turn sampler in coordinates whitened by the Fisher information at a mode.

    ``MCMC(FisherNUTS(model), num_warmup=200, num_samples=1000).run(key, *args)`` finds the modes
    of the posterior from several prior draws, whitens it at the best one with the precision
    ``prior + JᵀFJ``, starts each chain at an over-dispersed draw from the Gaussian at one of the
    modes, and goes on as NumPyro's NUTS, with a step size and a diagonal mass matrix adapted on
    top. Whitening is a change of coordinates by an affine map: the sampler stays exact, whatever
    the estimate.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density.
    estimate
        The result of `find_map`, for the same model. None: found when the chains start.
    key
        Random key of that search; the same for all chains. None: a fixed one.
    rank
        Of the whitening, see `fisher_whitening`. None: dense up to 1024 coordinates.
    num_starts
        Starts of the search.
    step_size, target_accept_prob, max_tree_depth, dense_mass, adapt_mass_matrix
        As for NumPyro's NUTS, in whitened coordinates.

    Attributes
    ----------
    estimate
        After a run: what the search found (None where the data were traced).

    Raises
    ------
    ValueError
        When a latent site is discrete, masked, scaled or subsampled, or an observed law has no
        Fisher information on record; by name.

    Warns
    -----
    UserWarning
        When modes within 3 nats of the best disagree.

    Notes
    -----
    **Density** exact: the target is the posterior.

    **Fails when** modes are separated: chains stay where they start, and their numbers in each mode
    say nothing of its weight. `numpyro_genprior.diagnostics.modes` shows it, and
    `ParallelTempering` is the cure. When the curvature differs much from mode to tail, the
    whitening helps less.

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

    algorithm = "NUTS"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        estimate: MAPEstimate | None = None,
        key: jax.Array | None = None,
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
    a vectorized NUTS goes on until its longest tree is done.

    Parameters
    ----------
    model, estimate, key, rank, num_starts
        As for `FisherNUTS`.
    trajectory_length
        In whitened coordinates, where a Gaussian posterior has frequency 1: after a quarter turn,
        π/2, a draw from it has forgotten where it started.
    num_steps
        A fixed number of steps in the place of a length.
    step_size, target_accept_prob, dense_mass, adapt_mass_matrix
        As for NumPyro's HMC, in whitened coordinates.

    Attributes
    ----------
    estimate
        As for `FisherNUTS`.

    Raises
    ------
    ValueError
        As `FisherNUTS` does, and for both a length and a number of steps.

    Notes
    -----
    **Density** exact: the target is the posterior.

    **Fails when** the posterior is far from Gaussian: one length then suits no direction, and
    `FisherNUTS` is the safer one.

    References
    ----------
    Neal, MCMC using Hamiltonian dynamics, 2011.
    """

    algorithm = "HMC"

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        trajectory_length: float | None = None,
        num_steps: int | None = None,
        estimate: MAPEstimate | None = None,
        key: jax.Array | None = None,
        rank: int | None = None,
        num_starts: int = 8,
        step_size: float = 1.0,
        target_accept_prob: float = 0.8,
        dense_mass: bool = False,
        adapt_mass_matrix: bool = True,
    ) -> None:
        if trajectory_length is not None and num_steps is not None:
            raise ValueError("FisherHMC: give trajectory_length or num_steps, not both.")
        if trajectory_length is None and num_steps is None:
            trajectory_length = math.pi / 2
        super().__init__(
            model,
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
