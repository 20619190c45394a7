"""A prior by itself as a `Posterior`: its standard normal coordinates, its events, its noise."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.priors import Prior
from numpyro_genprior.sites import latent
from numpyro_genprior.sites.wrappers import unwrap


def bare_prior(prior: Any, name: str) -> Prior:
    """The `Prior` in an expanded or independent one, with an empty batch shape.

    Raises
    ------
    TypeError
        When it is none.
    ValueError
        When it has a batch of conditions.
    """
    core: Any = unwrap(prior) if isinstance(prior, Distribution) else prior
    if not isinstance(core, Prior):
        raise TypeError(
            message(
                f"{name} examines a generative prior",
                expected="an ngp.Prior (GANPrior, VAEPrior, FlowPrior, ...)",
                got=type(prior).__name__,
                remedy="pass the prior of the site, not the model or the network",
            )
        )
    if core.batch_shape:
        raise ValueError(
            message(
                f"{name} examines one law, and this prior is a batch of them",
                expected="batch_shape ()",
                got=core.batch_shape,
                remedy="choose one condition: prior.given(condition)",
            )
        )
    return core


def generator(prior: Prior) -> Posterior:
    """A prior whose event is measured with unit noise: the whitened Jacobian is that of g."""
    return Posterior(_seen_with_unit_noise, (prior, jnp.zeros(prior.event_shape)))


def decoder(prior: Prior) -> Posterior:
    """A prior with decoder noise whose event is given: Jacobians in units of that noise."""
    return Posterior(_given, (prior, jnp.zeros(prior.event_shape)))


@eqx.filter_jit
def prior_draws(posterior: Posterior, key: jax.Array, number: int) -> jax.Array:
    """Coordinates of draws from the prior, of shape ``(number, size)``."""
    return jax.vmap(posterior.draw)(jax.random.split(key, number))


@latent(noise="omit", explicit=True)
def _seen_with_unit_noise(prior: Any, y: jax.Array) -> None:
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(y.ndim), obs=y)


@latent(noise="centered", explicit=True)
def _given(prior: Any, x: jax.Array) -> None:
    numpyro.sample("x", prior, obs=x)
