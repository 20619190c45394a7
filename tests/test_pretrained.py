"""The priors that ship: they load, say what they are, and fit events that training never saw."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from numpyro_genprior import pretrained
from numpyro_genprior.train import sample_coverage

CLASSES = {
    "digits_flow": "FlowPrior",
    "digits_gan": "GANPrior",
    "digits_gaussian": "GaussianPrior",
    "digits_vae": "VAEPrior",
    "mnist_conv_vae": "VAEPrior",
    "mnist_flow": "VAEPrior",
    "mnist_gan": "GANPrior",
    "mnist_gaussian": "GaussianPrior",
    "mnist_vae": "VAEPrior",
}


@pytest.fixture(scope="module")
def held_out():
    images = pytest.importorskip("sklearn.datasets").load_digits().images
    order = np.random.default_rng(0).permutation(1797)
    return jnp.asarray(images[order[-297:]] / 16, jnp.float32)


def test_names():
    assert pretrained.names() == tuple(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_loads_with_its_card(name):
    prior = pretrained.load(name)
    assert type(prior).__name__ == CLASSES[name]
    assert prior.event_shape == ((28, 28) if name.startswith("mnist") else (8, 8))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(prior))
    card = pretrained.card(name)
    for part in (f"# {name}", "Licence of the data", "Split", "Architecture", "--only", "held-out"):
        assert part in card


@pytest.mark.parametrize("name", ["digits_vae", "digits_gan", "digits_flow"])
def test_samples_cover_held_out_digits(name, held_out):
    prior = pretrained.load(name)
    if CLASSES[name] == "VAEPrior":
        prior = prior.noiseless()
    if CLASSES[name] == "FlowPrior":  # it has noise added, as its card says
        held_out = held_out + 0.05 * jr.normal(jr.key(1), held_out.shape)
    figures = sample_coverage(prior.sample(jr.key(0), (297,)), held_out)
    assert figures["coverage"] > 0.7
    assert 0.8 < figures["diversity"] < 1.2


def test_vae_reconstructs_held_out_digits(held_out):
    prior = pretrained.load("digits_vae")
    loc, _ = jax.vmap(prior.encoder)(held_out)
    error = jnp.mean((prior.decode(loc) - held_out) ** 2)
    # Against the variance of the pixels, the error of the mean image.
    assert float(error) < 0.2 * float(jnp.mean(jnp.var(held_out, axis=0)))


def test_unknown_name():
    with pytest.raises(ValueError, match="digits_vae, mnist_conv_vae"):
        pretrained.load("cats")
    with pytest.raises(ValueError, match="train your own"):
        pretrained.card("cats")


def test_flow_is_another_distribution_of_the_latents_of_the_vae():
    flow, vae = pretrained.load("mnist_flow"), pretrained.load("mnist_vae")
    assert type(flow.latent).__name__ == "FlowPrior"
    z = jnp.linspace(-1, 1, 20)
    np.testing.assert_array_equal(flow.decode(z), vae.decode(z))
