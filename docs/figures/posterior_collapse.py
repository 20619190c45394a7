"""Posterior against prior, coordinate by coordinate."""

import jax
import jax.numpy as jnp

import numpyro_genprior as ngp

sd = jnp.array([0.2, 1.0, 0.9, 0.5, 1.0, 0.3])
mean = jnp.array([0.8, 0.0, 0.3, -1.1, 0.0, 0.5])
draws = mean + sd * jax.random.normal(jax.random.key(1), (4, 500, 6))
ngp.diagnostics.posterior_collapse({"x_latent": draws}).plot()
