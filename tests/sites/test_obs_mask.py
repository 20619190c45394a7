"""Partly observed events: only the density of the observed event is masked."""

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from site_models import SCALE, X, Z, density, flow, generate, normal, trace_of, vae

import numpyro_genprior as ngp

MASK = jnp.array([True, False, True])
DATA = jnp.stack([X, 2 * X, 3 * X])
LATENTS = jnp.stack([Z, -Z, 2 * Z])


def model(prior, data, mask):
    with numpyro.plate("rows", 3):
        return numpyro.sample("x", prior, obs=data, obs_mask=mask)


def by_hand(z, event):
    loc = jnp.stack([generate(row) for row in z])
    return ((event - loc) / SCALE) ** 2 / -2 - np.log(SCALE * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("noise", ["auto", "centered"])
@pytest.mark.parametrize("spelling", ["latent", "reparam"])
def test_latents_and_noise_keep_their_density_on_every_row(noise, spelling):
    if spelling == "latent":
        decorated = ngp.latent(model, noise=noise)
    else:
        reparam = ngp.LatentReparam(noise)
        config = {"x_observed": reparam, "x_unobserved": reparam}
        decorated = handlers.reparam(model, config=config)
    params = {"x_observed_latent": LATENTS, "x_unobserved_latent": 0.5 * LATENTS}
    other = "x_unobserved_noise" if noise == "auto" else "x_unobserved"
    params[other] = 0.1 * DATA
    got, trace = density(decorated, params, vae(), DATA, MASK)
    expected = normal(LATENTS) + normal(0.5 * LATENTS)
    expected += jnp.sum(by_hand(LATENTS, DATA)[MASK])
    if noise == "auto":
        expected += normal(0.1 * DATA)
    else:
        expected += jnp.sum(by_hand(0.5 * LATENTS, 0.1 * DATA))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    unobserved = trace["x_unobserved"]["value"]
    np.testing.assert_allclose(trace["x"]["value"][1], unobserved[1], rtol=1e-6)
    np.testing.assert_array_equal(trace["x"]["value"][0], DATA[0])


def test_a_mask_of_the_users_masks_latents_too():
    """Beside that of ``obs_mask``: one on the prior, and one by a handler."""
    own = jnp.array([True, True, False])

    def masked(prior, data, mask):
        with numpyro.plate("rows", 3):
            return numpyro.sample("x", prior.expand([3]).mask(own), obs=data, obs_mask=mask)

    def handled(prior, data, mask):
        with handlers.mask(mask=own):
            return model(prior, data, mask)

    params = {"x_observed_latent": LATENTS, "x_unobserved_latent": 0.5 * LATENTS}
    params["x_unobserved_noise"] = 0.1 * DATA
    expected = normal(LATENTS[own]) + normal(0.5 * LATENTS[own]) + normal(0.1 * DATA[own])
    expected += jnp.sum(by_hand(LATENTS, DATA)[MASK & own])
    for function in (masked, handled):
        got, _ = density(ngp.latent(function), params, vae(), DATA, MASK)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_an_exact_prior_by_its_latent():
    trace = trace_of(ngp.latent(model, explicit=True), flow(), DATA, MASK)
    latent = trace["x_unobserved_latent"]
    np.testing.assert_allclose(
        latent["fn"].log_prob(latent["value"]).sum(), normal(latent["value"]), rtol=1e-5
    )
    observed = trace["x_observed"]
    expected = jnp.where(MASK, flow().log_prob(DATA), 0.0)
    np.testing.assert_allclose(observed["fn"].log_prob(observed["value"]), expected, rtol=1e-5)
