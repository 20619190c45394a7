"""Residuals of the best fit to held-out digits."""

import jax
import numpy as np
from sklearn.datasets import load_digits

import numpyro_genprior as ngp

images = load_digits().images / 16
held_out = images[np.random.default_rng(0).permutation(1797)[1500:]]
prior = ngp.pretrained.load("digits_vae")
ngp.diagnostics.estimate_event_scale(prior, jax.random.key(0), held_out[:64]).plot()
