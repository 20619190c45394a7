"""`FlatKernel` and `PureKernel`: NumPyro kernels on the flat coordinates of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from numpyro_genprior.infer.layout import Layout
from numpyro_genprior.infer.posterior import Posterior, site_values

COUNTERS = ("i", "num_warmup")  # fields of a state that are equal for all chains


def split_sites(layout: Layout, xi: Float[Array, " latent"]) -> dict[str, jax.Array]:
    """Flat coordinates as one array for each latent site."""
    return {part.name: part.take(xi) for part in layout.slices}


def join_sites(layout: Layout, z: Mapping[str, jax.Array]) -> Float[Array, " latent"]:
    """The inverse of `split_sites`."""
    return jnp.concatenate([jnp.ravel(z[part.name]) for part in layout.slices])


class FlatKernel(MCMCKernel, ABC):
    """A Markov kernel on the flat coordinates of a model.

    Its state is a ``NamedTuple`` of arrays with at least ``z``, coordinates by site, and
    ``rng_key``. Subclasses implement NumPyro's ``init``, ``sample`` and ``default_fields``.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self._model = model

    @abstractmethod
    def init(
        self,
        rng_key: PRNGKeyArray,
        num_warmup: int,
        init_params: Mapping[str, jax.Array] | None = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The first state; at `init_params`, values of the latent sites, if they are given.

        `rng_key` (of either kind) may have one leading dimension, chains; `init_params` then has
        the same one.
        """

    @abstractmethod
    def sample(
        self, state: Any, model_args: tuple[Any, ...], model_kwargs: Mapping[str, Any] | None
    ) -> Any:
        """One step, of each chain if the state has a leading dimension."""

    @property
    @abstractmethod
    def default_fields(self) -> tuple[str, ...]:
        """The fields of the state that an ``MCMC`` collects."""

    @property
    def model(self) -> Callable[..., Any]:
        """The NumPyro model."""
        return self._model

    @property
    def sample_field(self) -> str:
        return "z"

    def posterior(
        self, model_args: tuple[Any, ...], model_kwargs: Mapping[str, Any] | None
    ) -> Posterior:
        """The `Posterior` of the model given its arguments."""
        return Posterior(self._model, tuple(model_args), dict(model_kwargs or {}))

    def postprocess_fn(
        self, model_args: tuple[Any, ...], model_kwargs: Mapping[str, Any] | None
    ) -> Callable[[Mapping[str, jax.Array]], dict[str, jax.Array]]:
        """The function from coordinates by site to all sites, deterministic ones included."""
        posterior = self.posterior(model_args, model_kwargs)
        return lambda z: site_values(posterior, join_sites(posterior.layout, z))


class PureKernel(FlatKernel):
    """A `FlatKernel` that consists of two pure functions of one chain, `init_state` and `step`.

    Its state has ``i`` (iterations so far, an integer) and ``num_warmup`` as well. The kernel
    stores no state, so that it may be reused for other data, other weights and many chains at once,
    and the two functions may be mapped over data by ``jax.vmap``. All coordinates of the model have
    to be standard normal under the prior.
    """

    @abstractmethod
    def init_state(
        self,
        posterior: Posterior,
        key: PRNGKeyArray,
        num_warmup: int,
        xi: Float[Array, " latent"] | None = None,
    ) -> Any:
        """The state of one chain before its first step, at `xi` if the user chose a start."""

    @abstractmethod
    def step(self, posterior: Posterior, state: Any) -> Any:
        """The state of one chain after one step."""

    def init(
        self,
        rng_key: PRNGKeyArray,
        num_warmup: int,
        init_params: Mapping[str, jax.Array] | None = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        posterior = self.posterior(model_args, model_kwargs)
        posterior.require_standard_normal(type(self).__name__)
        if is_prng_key(rng_key):
            return _init(self, posterior, rng_key, num_warmup, init_params)
        return _init_chains(self, posterior, rng_key, num_warmup, init_params)

    def sample(
        self, state: Any, model_args: tuple[Any, ...], model_kwargs: Mapping[str, Any] | None
    ) -> Any:
        posterior = self.posterior(model_args, model_kwargs)
        if is_prng_key(state.rng_key):
            return self.step(posterior, state)
        # Counters are equal for all chains. Unbatched, a `lax.cond` on them remains a branch.
        counters = {name: getattr(state, name)[0] for name in COUNTERS}
        axes = type(state)(**{k: None if k in COUNTERS else 0 for k in state._fields})
        new = jax.vmap(self.step, in_axes=(None, axes), out_axes=axes)(
            posterior, state._replace(**counters)
        )
        chains = len(state.i)
        return new._replace(
            **{name: jnp.broadcast_to(getattr(new, name), (chains,)) for name in COUNTERS}
        )


@eqx.filter_jit
def _init(
    kernel: PureKernel,
    posterior: Posterior,
    key: PRNGKeyArray,
    num_warmup: int,
    values: Mapping[str, jax.Array] | None,
) -> Any:
    xi = None if values is None else posterior.coordinates(dict(values))
    return kernel.init_state(posterior, key, num_warmup, xi)


@eqx.filter_jit
def _init_chains(
    kernel: PureKernel,
    posterior: Posterior,
    keys: PRNGKeyArray,
    num_warmup: int,
    values: Mapping[str, jax.Array] | None,
) -> Any:
    def one(key: PRNGKeyArray, values: Mapping[str, jax.Array] | None) -> Any:
        return _init(kernel, posterior, key, num_warmup, values)

    return jax.vmap(one)(keys, values)
