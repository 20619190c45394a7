"""SBC of a model whose data have three times the noise that inference assumes."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp

mix = jnp.array([[1.0, 0.9], [0.9, 1.0]])


@ngp.latent
def model(y, noise=0.3):
    x = numpyro.sample("x", ngp.GANPrior(lambda z: mix @ z, 2))
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


result = ngp.diagnostics.sbc(
    model,
    jax.random.key(0),
    jnp.zeros(2),
    simulate=lambda y: model(y, noise=0.9),
    guide=ngp.infer.AutoFisherLaplace,
    num_replications=128,
    progress_bar=False,
)
result.plot()
