"""`estimate_event_scale` against the known scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_genprior as ngp

DIGITS = ngp.pretrained.load("digits_vae")
G = np.random.default_rng(4).normal(size=(30, 4))


def real(number):
    """Held-out digits of scikit-learn, see examples/train_pretrained.py."""
    datasets = pytest.importorskip("sklearn.datasets")
    images = datasets.load_digits().images / 16
    return images[np.random.default_rng(0).permutation(len(images))[1500 : 1500 + number]]


def test_event_scale_of_a_linear_generator(rng):
    prior = ngp.GANPrior(lambda z: (jnp.asarray(G, z.dtype) @ z).reshape(6, 5), 4)
    sd = np.where(np.arange(30).reshape(6, 5) < 15, 0.2, 0.4)
    white = rng.normal(size=(200, 6, 5))
    events = (rng.normal(size=(200, 4)) @ G.T).reshape(-1, 6, 5)
    tau = ngp.diagnostics.estimate_event_scale(
        prior, jax.random.key(0), events + 0.3 * white, num_starts=1
    )
    assert abs(float(tau) - 0.3) < 5 * 0.3 / np.sqrt(2 * 200 * 26)
    assert 0.5 < tau.standard_error / (0.3 / np.sqrt(2 * 200 * 26)) < 2
    assert tau.by_entry.shape == (6, 5)
    np.testing.assert_allclose(np.sqrt(np.mean(tau.by_entry**2)), float(tau), rtol=1e-3)
    assert tau.errors.shape == (200,)
    assert jnp.asarray(tau).shape == ()
    assert "white" not in str(tau)
    uneven = ngp.diagnostics.estimate_event_scale(
        prior, jax.random.key(0), events + sd * white, num_starts=1
    )
    assert np.all(uneven.by_entry[3:].mean() > 1.5 * uneven.by_entry[:3].mean())


@pytest.mark.slow
def test_event_scale_of_digits():
    tau = ngp.diagnostics.estimate_event_scale(DIGITS, jax.random.key(0), real(40), num_starts=1)
    assert tau.decoder_scale == pytest.approx(float(DIGITS.scale), rel=1e-5)
    assert float(tau) == pytest.approx(tau.decoder_scale, rel=0.15)  # trained by maximum likelihood
    assert "own noise is" in str(tau)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda k: ngp.diagnostics.estimate_event_scale(
            ngp.pretrained.load("digits_gaussian"), k, np.ones((3, 8, 8))), ValueError,
         "Compare prior.log_prob"),
        (lambda k: ngp.diagnostics.estimate_event_scale(DIGITS, k, np.ones((8, 8))), ValueError,
         "Stack held-out events"),
        (lambda k: ngp.diagnostics.estimate_event_scale(
            DIGITS, k, np.full((2, 8, 8), np.nan)), ValueError, "Drop those with NaN"),
        (lambda k: ngp.diagnostics.estimate_event_scale(
            DIGITS, k, np.ones((2, 8, 8)), num_starts=0), ValueError, "num_starts=4"),
    ],
)  # fmt: skip
def test_errors(build, error, words):
    with pytest.raises(error, match=words):
        build(jax.random.key(0))
