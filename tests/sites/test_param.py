"""Weights under SVI: frozen unless `ngp.param` trains them, and arguments of the program."""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import paramax
import pytest
from flowjax import bijections as fb
from flowjax import distributions as fd
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density
from numpyro.optim import Adam

import numpyro_genprior as ngp
from numpyro_genprior.networks.architectures import MLPDecoder

Y = jnp.array([0.3, -1.0, 0.8])


class Encoder(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x):
        loc, log_scale = jnp.split(self.linear(x), 2)
        return loc, jnp.exp(log_scale)


def decoder():
    return MLPDecoder(2, 3, hidden=(4,), output="identity", key=jax.random.key(1))


def gan():
    return ngp.GANPrior(decoder(), 2)


def vae():
    encoder = Encoder(eqx.nn.Linear(3, 4, key=jax.random.key(2)))
    return ngp.VAEPrior(decoder(), 2, scale=0.5, encoder=encoder)


@ngp.latent
def model(prior, y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


def fitted(model, *args, steps=30):
    svi = SVI(model, AutoNormal(model), Adam(0.02), Trace_ELBO())
    with jax.numpy_rank_promotion("allow"):  # the guide's own
        return svi.run(jax.random.key(0), steps, *args, progress_bar=False).params


def test_weights_are_frozen_without_param():
    """200 steps do not change the decoder, since it is no parameter."""
    prior = gan()
    before = copy.deepcopy(prior)
    params = fitted(model, prior, Y, steps=200)
    assert set(params) == {"x_latent_auto_loc", "x_latent_auto_scale"}
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(prior), strict=True):
        np.testing.assert_array_equal(a, b)


def test_net_encoder_and_scale_are_trained():
    prior = vae()

    @ngp.latent
    def trained(prior, y):
        numpyro.sample("x", ngp.param("prior", prior, scale=True), obs=y)

    params = fitted(trained, prior, Y)
    weights = params["prior"]
    pairs = zip(weights["net"], jax.tree.leaves(prior.net), strict=True)
    assert all(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)
    assert len(weights["encoder"]) == len(jax.tree.leaves(prior.encoder))
    assert params["prior_scale"] > 0
    assert params["prior_scale"] != 0.5


def test_the_scale_stays_unless_asked_for():
    @ngp.latent
    def trained(prior, y):
        numpyro.sample("x", ngp.param("prior", prior), obs=y)

    assert "prior_scale" not in fitted(trained, vae(), Y, steps=2)


def test_the_scale_is_trained_to_its_maximum():
    """Independent normals: the maximum likelihood is at the means and variances of the data."""
    data = jnp.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.1]])
    prior = ngp.GaussianPrior(jnp.zeros(2), factor=jnp.zeros((2, 0)), diagonal=1.0)

    def trained(prior, data):
        prior = ngp.param("prior", prior, scale=True)
        with numpyro.plate("rows", 3):
            numpyro.sample("x", prior, obs=data)

    svi = SVI(trained, lambda prior, data: None, Adam(0.02), Trace_ELBO())
    params = svi.run(jax.random.key(0), 3000, prior, data, progress_bar=False).params
    np.testing.assert_allclose(params["prior"]["loc"][0], data.mean(0), atol=1e-3)
    np.testing.assert_allclose(params["prior_scale"], np.var(data, 0), rtol=1e-2)


def test_the_distribution_of_the_latent_stays():
    """The flow under a decoder is not trained with it."""
    base = ngp.FlowPrior(fd.Normal(jnp.array([0.5, 0.5])))

    @ngp.latent
    def trained(prior, y):
        numpyro.sample("x", ngp.param("prior", prior), obs=y)

    params = fitted(trained, ngp.VAEPrior(decoder(), base, scale=0.5), Y, steps=2)
    assert list(params["prior"]) == ["net"]


def test_leaves_that_flowjax_marks_stay():
    scale = paramax.non_trainable(fb.Affine(jnp.zeros(2), jnp.full(2, 3.0)))
    transformed = fd.Transformed(fd.StandardNormal((2,)), fb.Chain([scale, fb.Loc(jnp.ones(2))]))
    prior = ngp.FlowPrior(transformed)

    def trained(prior, y):
        numpyro.sample("x", ngp.param("prior", prior), obs=y)

    svi = SVI(trained, lambda prior, y: None, Adam(0.05), Trace_ELBO())
    params = svi.run(jax.random.key(0), 1000, prior, Y[:2], progress_bar=False).params
    (loc,) = params["prior"]["flow"]
    np.testing.assert_allclose(loc, Y[:2], atol=1e-2)  # the maximum of the likelihood


def test_mcmc_keeps_the_initial_weights():
    @ngp.latent
    def trained(prior, y):
        x = numpyro.sample("x", ngp.param("prior", prior))
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    prior = gan()
    mcmc = MCMC(NUTS(trained), num_warmup=20, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.key(0), prior, Y)
    draws = mcmc.get_samples()
    np.testing.assert_allclose(draws["x"], prior.decode(draws["x_latent"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", ["frozen", "trained"])
def test_svi_takes_other_weights_and_data_without_a_retrace(weights):
    traces = []

    @ngp.latent
    def counted(prior, y):
        traces.append(None)
        x = numpyro.sample("x", ngp.param("prior", prior) if weights == "trained" else prior)
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    svi = SVI(counted, AutoNormal(counted), Adam(0.02), Trace_ELBO())
    update = jax.jit(svi.update)
    prior, other = gan(), jax.tree.map(lambda leaf: 2 * leaf, gan())
    with jax.numpy_rank_promotion("allow"):
        state = svi.init(jax.random.key(0), prior, Y)
        _, first = update(state, prior, Y)
        before = len(traces)
        _, second = update(state, other, -Y)
    assert len(traces) == before
    assert first != second


def test_weights_are_arguments_of_the_program():
    """The compiled gradient contains no constant as large as the weights."""
    weights = jax.random.normal(jax.random.key(0), (300, 200))
    prior = ngp.GANPrior(lambda z: weights @ z, 200)

    def potential(prior, z):
        return log_density(model, (prior, jnp.ones(300)), {}, {"x_latent": z})[0]

    text = jax.jit(jax.grad(potential, 1)).lower(prior, jnp.ones(200)).as_text()
    assert len(text) < 40_000  # the weights alone would take 480 kB
    np.testing.assert_array_equal(jax.tree.leaves(prior)[0], weights)
