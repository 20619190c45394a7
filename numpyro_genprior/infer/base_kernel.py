"""`FlatKernel`: what NumPyro kernels on a model's flat coordinates have in common."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from numpyro_genprior.infer.layout import Layout
from numpyro_genprior.infer.posterior import Posterior

SHARED = ("i", "num_warmup")  # counters that all chains have in common


def split_sites(layout: Layout, xi: jax.Array) -> dict[str, jax.Array]:
    """Flat coordinates as one array for each latent site."""
    return {part.name: part.take(xi) for part in layout.slices}


def join_sites(layout: Layout, z: dict[str, jax.Array]) -> jax.Array:
    """The inverse of `split_sites`."""
    return jnp.concatenate([jnp.ravel(z[part.name]) for part in layout.slices])


class FlatKernel(MCMCKernel, ABC):
    """A Markov kernel on the flat coordinates of a model.

    A subclass gives two pure functions of fixed sizes, for one chain: `init_state` and `step`.
    Its state is a ``NamedTuple`` of arrays with at least ``i`` (iterations so far, an integer),
    ``z`` (coordinates by site), ``num_warmup`` and ``rng_key``. Nothing is kept in the kernel, so
    that it may be used for other data, for other weights and for many chains at once, and the
    pure functions under ``jax.vmap`` over data.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self._model = model

    # ---- what a subclass gives -------------------------------------------------------------------

    @abstractmethod
    def init_state(
        self, posterior: Posterior, key: jax.Array, num_warmup: int, xi: jax.Array | None = None
    ) -> Any:
        """The state before the first step of one chain; `xi` is a start that the user chose."""

    @abstractmethod
    def step(self, posterior: Posterior, state: Any) -> Any:
        """The state of one chain after one step."""

    def check(self, posterior: Posterior) -> None:
        """Refuse a model that this kernel cannot sample."""
        posterior.require_standard_normal(type(self).__name__)

    # ---- NumPyro's interface ---------------------------------------------------------------------

    @property
    def model(self) -> Callable[..., Any]:
        """The NumPyro model."""
        return self._model

    @property
    def sample_field(self) -> str:
        return "z"

    @property
    def default_fields(self) -> tuple[str, ...]:
        return ("z", "potential_energy")

    def posterior(self, model_args: tuple[Any, ...], model_kwargs: Any) -> Posterior:
        """The model and its arguments as one pure object."""
        return Posterior(self._model, tuple(model_args), dict(model_kwargs or {}))

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: dict[str, jax.Array] | None = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The first state; from `init_params`, values of the latent sites, where they are given.

        `rng_key` (of either kind) may have one leading dimension, chains; `init_params` then has
        it, too.
        """
        posterior = self.posterior(model_args, model_kwargs)
        self.check(posterior)
        if is_prng_key(rng_key):
            return _init(self, posterior, rng_key, num_warmup, init_params)
        return _init_chains(self, posterior, rng_key, num_warmup, init_params)

    def sample(self, state: Any, model_args: tuple[Any, ...], model_kwargs: Any) -> Any:
        """One step; of each chain, where the state has a leading dimension."""
        posterior = self.posterior(model_args, model_kwargs)
        if is_prng_key(state.rng_key):
            return self.step(posterior, state)
        # The chains' counters are equal. Kept out of the batch, a branch on them is one branch and
        # not both.
        counters = {name: getattr(state, name)[0] for name in SHARED}
        axes = type(state)(**{k: None if k in SHARED else 0 for k in state._fields})
        new = jax.vmap(self.step, in_axes=(None, axes), out_axes=axes)(
            posterior, state._replace(**counters)
        )
        chains = len(state.i)
        return new._replace(
            **{name: jnp.broadcast_to(getattr(new, name), (chains,)) for name in SHARED}
        )

    def postprocess_fn(self, model_args: Any, model_kwargs: Any) -> Callable[[Any], Any]:
        """From coordinates by site to all sites, deterministic ones included."""
        posterior = self.posterior(model_args, model_kwargs)
        return lambda z: _values(posterior, z)

    def wrap_model(self, wrapper: Callable[..., Any]) -> FlatKernel:
        """A copy of this kernel for the model ``wrapper(model)``."""
        other = copy.copy(self)
        other._model = wrapper(self._model)
        return other


@eqx.filter_jit
def _init(kernel: Any, posterior: Any, key: Any, num_warmup: int, values: Any) -> Any:
    xi = None if values is None else posterior.coordinates(values)
    return kernel.init_state(posterior, key, num_warmup, xi)


@eqx.filter_jit
def _init_chains(kernel: Any, posterior: Any, keys: Any, num_warmup: int, values: Any) -> Any:
    def one(key: jax.Array, values: Any) -> Any:
        return _init(kernel, posterior, key, num_warmup, values)

    return jax.vmap(one)(keys, values)


@eqx.filter_jit
def _values(posterior: Posterior, z: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return posterior.values(join_sites(posterior.layout, z))
