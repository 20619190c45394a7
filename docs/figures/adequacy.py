"""A chessboard under a prior of digits."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp

prior = ngp.pretrained.load("digits_vae")


@ngp.latent(noise="omit")
def model(prior, y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 0.1).to_event(2), obs=y)


chessboard = jnp.indices((8, 8)).sum(0) % 2 * 1.0
ngp.diagnostics.adequacy(model, jax.random.key(0), prior, chessboard, num_starts=4).plot()
