"""Energies at the ends of 32 starts: two rows of a digit are observed."""

import warnings

import jax
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp

prior = ngp.pretrained.load("digits_gan")


@ngp.latent(noise="omit")
def model(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[:2], 0.1).to_event(2), obs=y)


truth = ngp.pretrained.load("digits_vae").noiseless().sample(jax.random.key(1))
y = truth[:2] + 0.1 * jax.random.normal(jax.random.key(2), (2, 8))
warnings.simplefilter("ignore", UserWarning)  # two modes compete
estimate = ngp.infer.find_map(model, jax.random.key(0), prior, y, num_starts=32, progress_bar=False)
estimate.plot()
