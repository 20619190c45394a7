"""What the best and the least determined directions do to the digit."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_genprior as ngp

prior = ngp.pretrained.load("digits_vae")


@ngp.latent(noise="omit")
def model(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[:, :4], 0.1).to_event(2), obs=y)  # the left half


truth = prior.decode(jax.random.normal(jax.random.key(3), (12,)))
y = truth[:, :4] + 0.1 * jax.random.normal(jax.random.key(4), (8, 4))
estimate = ngp.infer.find_map(model, jax.random.key(0), prior, y, progress_bar=False)
sensitivity = ngp.diagnostics.sensitivity(model, estimate, prior, y)
ngp.plots.event_directions(sensitivity, observed=np.arange(64).reshape(8, 8) % 8 < 4)
