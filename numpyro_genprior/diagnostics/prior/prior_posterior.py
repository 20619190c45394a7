"""A prior on its own as a `Posterior`, whose Jacobians are those of the generator."""

from __future__ import annotations

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


def bare_prior(prior: Distribution, name: str) -> Prior:
    """The `Prior` inside an expanded or independent distribution.

    Parameters
    ----------
    prior
        The distribution.
    name
        Name of the diagnostic, for messages.

    Raises
    ------
    TypeError
        If `prior` is not a prior.
    ValueError
        If it has a batch shape.
    """
    core = unwrap(prior) if isinstance(prior, Distribution) else prior
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
                f"{name} examines one distribution, and this prior is a batch of them",
                expected="batch_shape ()",
                got=core.batch_shape,
                remedy="choose one condition: prior.given(condition)",
            )
        )
    return core


def generator(prior: Prior) -> Posterior:
    """The posterior under unit noise on the event: its whitened Jacobian is that of g."""
    return Posterior(_observed_with_unit_noise, (prior, jnp.zeros(prior.event_shape)))


def decoder(prior: Prior) -> Posterior:
    """The posterior given the event, under decoder noise: Jacobians are in units of that noise."""
    return Posterior(_observed, (prior, jnp.zeros(prior.event_shape)))


@eqx.filter_jit
def prior_draws(posterior: Posterior, key: jax.Array, number: int) -> jax.Array:
    """Coordinates of draws from the prior, of shape ``(number, size)``."""
    return jax.vmap(posterior.draw)(jax.random.split(key, number))


@latent(noise="omit", explicit=True)
def _observed_with_unit_noise(prior: Prior, y: jax.Array) -> None:
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(y.ndim), obs=y)


@latent(noise="centered", explicit=True)
def _observed(prior: Prior, x: jax.Array) -> None:
    numpyro.sample("x", prior, obs=x)
