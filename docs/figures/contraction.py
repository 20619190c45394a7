"""Contraction of a series prior, with the exponent of theory."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp

i = jnp.arange(1, 33.0)


@ngp.latent
def model(y, noise):
    x = numpyro.sample("x", ngp.GANPrior(lambda z: i**-1.5 * z, 32))
    numpyro.sample("y", dist.Normal(i**-0.5 * x, noise).to_event(1), obs=y)


result = ngp.diagnostics.contraction(
    model,
    jax.random.key(0),
    jnp.zeros(32),
    schedule={"noise": [0.3, 0.1, 0.03, 0.01]},
    truth={"x": i**-2.5},
    progress_bar=False,
)
ngp.plots.contraction(result, theory=0.5)
