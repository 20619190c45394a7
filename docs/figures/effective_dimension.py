"""Mean spectrum of the Jacobian of the decoder."""

import jax

import numpyro_genprior as ngp

prior = ngp.pretrained.load("digits_vae")
ngp.diagnostics.effective_dimension(prior, jax.random.key(0)).plot()
