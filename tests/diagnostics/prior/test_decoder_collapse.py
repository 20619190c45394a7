"""`decoder_collapse` against theory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics import decoder_collapse
from numpyro_genprior.train import fit_vae


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beta", "num_active", "verdict"),
    [(1.0, 3, "healthy"), (20.0, 2, "collapsed_units"), (200.0, 0, "ignores_latent")],
)
def test_a_linear_vae_keeps_the_directions_that_theory_says(beta, num_active, verdict, key):
    """Those whose variance exceeds β · scale² (Lucas et al. 2019, with β in the scale)."""
    variances, scale = np.array([9.0, 4.0, 1.0, 0.01, 0.01]), 0.3
    rows = np.random.default_rng(0).normal(size=(2000, 5)) * np.sqrt(variances)
    prior = fit_vae(
        key,
        rows.astype(np.float32),
        latent_size=3,
        decoder=eqx.nn.Linear(3, 5, key=key),
        scale=scale,
        beta=beta,
        max_epochs=40,
        learning_rate=1e-2,
        show_progress=False,
    ).prior
    found = decoder_collapse(prior, key, num_draws=8)
    assert (found.num_active, found.verdict) == (num_active, verdict)
    assert int(np.sum(variances > beta * scale**2)) == num_active
    if num_active < 3:  # the encoder of a collapsed unit gives the prior
        assert np.all(np.asarray(found.kl)[~np.asarray(found.active)] < 0.05)
    words = {"healthy": "3 of 3", "collapsed_units": "smaller β", "ignores_latent": "Train again"}
    assert words[verdict] in str(found)


def linear_vae(sensitivity, *, beta=1.0, encoder=True):
    """A linear VAE of unit noise with the optimal encoder for this β, and its KL."""
    s = np.asarray(sensitivity, np.float32)
    variance = 1 / (1 + s**2 / beta)
    gain = variance * s / beta
    net = jax.tree_util.Partial(_encode, gain, jnp.sqrt(variance)) if encoder else None
    kl = 0.5 * (
        gain**2 * (s**2 + 1) + variance - 1 - np.log(variance)
    )  # over events x ~ N(0, s²+1)
    decoder = jax.tree_util.Partial(jnp.multiply, jnp.asarray(s))
    return ngp.VAEPrior(decoder, len(s), scale=1.0, encoder=net), kl


def _encode(gain, sd, x):
    return gain * x, sd


@pytest.mark.parametrize("encoder", [True, False])
def test_a_latent_that_carries_next_to_nothing_is_collapsed(encoder, key):
    """Each unit above Burda's threshold, and all together far below one bit."""
    prior, kl = linear_vae([0.15] * 5 + [0.05], encoder=encoder)
    assert kl.sum() < 0.1
    found = decoder_collapse(prior, key)
    assert (found.num_active, found.verdict) == (0, "ignores_latent")
    assert str(found).startswith("The decoder ignores its latent: no unit of 6")
    assert ("extracts almost no information" in str(found)) == encoder
    # one unit of a third of a nat does not make the others more than they are
    prior, _ = linear_vae([1.1] + [0.15] * 5, encoder=encoder)
    found = decoder_collapse(prior, key)
    np.testing.assert_array_equal(found.active, [True] + [False] * 5)


def test_units_that_matter_little_beside_others_are_barely_active(key):
    prior, kl = linear_vae([5.0, 4.0, 0.3, 3.0, 3.0, 3.0])
    found = decoder_collapse(prior, key)
    assert found.verdict == "healthy"
    np.testing.assert_array_equal(found.barely_active, kl < 0.1)
    assert "6 of 6 latents active, 1 of them barely (2: less than 0.1 nats)" in str(found)


def test_an_encoder_that_a_large_beta_shut_is_named_first(key):
    """The decoder moves the event by more than its noise; the encoder gives the prior."""
    prior, kl = linear_vae([1.2] * 6, beta=100.0)
    found = decoder_collapse(prior, key)
    assert kl.sum() < 0.1
    assert str(found).startswith("The encoder extracts almost no information")


def test_sensitivity_of_a_linear_decoder(key):
    weights = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    weights[:, 1] *= 0.01
    scale = np.array([0.1, 0.2, 0.5, 1.0, 0.1, 0.3], np.float32)
    prior = ngp.VAEPrior(
        lambda z: jnp.asarray(weights) @ z, 3, scale=scale, encoder=lambda x: (x[:3], x[:3] ** 2)
    )
    x = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    found = decoder_collapse(prior, key, num_draws=4, events=x)
    matrix = weights / scale[:, None]
    np.testing.assert_allclose(found.sensitivity, np.linalg.norm(matrix, axis=0), rtol=1e-4)
    singular = np.linalg.svd(matrix)[1]
    np.testing.assert_allclose(found.singular_values, singular, rtol=1e-5, atol=1e-5)
    shares = singular**2 / np.sum(singular**2)
    np.testing.assert_allclose(found.effective_rank, np.exp(-np.sum(shares * np.log(shares))), 1e-5)
    loc, sd = x[:, :3], x[:, :3] ** 2
    kl = 0.5 * (loc**2 + sd**2 - 1 - 2 * np.log(sd)).mean(0)
    np.testing.assert_allclose(found.kl, kl, rtol=1e-5)
    without_noise = decoder_collapse(prior.noiseless(), key, num_draws=4)
    np.testing.assert_allclose(
        without_noise.sensitivity, np.linalg.norm(weights, axis=0), rtol=1e-5
    )
    assert not without_noise.noise
    assert without_noise.kl is None


def test_a_generator_that_ignores_its_latent(key):
    found = decoder_collapse(ngp.GANPrior(lambda z: jnp.ones(3) + 0 * z[0], 2), key)
    assert found.verdict == "ignores_latent"
    assert "no data can change it" in str(found)


@pytest.mark.slow
def test_shipped_priors_are_healthy(key):
    # the KL of a unit of mnist_vae is 0.015: eight draws could put it below 0.01
    for name, number in (("digits_vae", 8), ("mnist_vae", 64), ("digits_gan", 8)):
        found = decoder_collapse(ngp.pretrained.load(name), key, num_draws=number)
        assert found.verdict == "healthy", name


def test_mistakes(key):
    with pytest.raises(TypeError, match="Pass the prior"):
        decoder_collapse(lambda z: z, key)
    batch = ngp.GANPrior(lambda z, c: z * c, 2, condition=jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"prior\.given"):
        decoder_collapse(batch, key)
