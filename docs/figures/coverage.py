"""Coverage of held-out digits if the decoder noise is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_digits

import numpyro_genprior as ngp

images = load_digits().images / 16
held_out = images[np.random.default_rng(0).permutation(1797)[1500:]]
prior = ngp.pretrained.load("digits_vae")


@ngp.latent(noise="omit")
def model(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x[::2], 0.1).to_event(2), obs=y)


result = ngp.diagnostics.coverage(
    model,
    jax.random.key(0),
    prior,
    jnp.zeros((4, 8)),
    events=held_out[:64],
    guide=ngp.infer.AutoFisherLaplace,
    progress_bar=False,
)
result.plot()
