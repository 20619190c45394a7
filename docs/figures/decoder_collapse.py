"""Signal of each latent of the pretrained VAE."""

import jax

import numpyro_genprior as ngp

prior = ngp.pretrained.load("digits_vae")
ngp.diagnostics.decoder_collapse(prior, jax.random.key(0)).plot()
