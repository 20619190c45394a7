"""Convergence of MGVI on the counts of a log-normal field."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp


@ngp.latent(explicit=True)
def counts(field, y=None):
    x = numpyro.sample("x", field)
    numpyro.sample("y", dist.Poisson(jnp.exp(x)).to_event(2), obs=y)


field = ngp.GaussianFieldPrior((32, 32), lambda k: 0.001 / (0.03**2 + k**2) ** 1.5)
y = jax.random.poisson(jax.random.key(4), jnp.exp(field.sample(jax.random.key(3))))
ngp.infer.MGVI(counts, progress_bar=False).run(jax.random.key(5), 6, field, y).plot()
