"""Largest singular value of the Jacobian at prior draws."""

import jax

import numpyro_genprior as ngp

prior = ngp.pretrained.load("digits_vae")
ngp.diagnostics.lipschitz(prior, jax.random.key(0)).plot()
