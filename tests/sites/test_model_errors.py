"""User errors in models, and in saving, traces and training, each with its message.

The tests of files, traces and training hold more of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from error_cases import KEY, Table, X, Z, flow, gan, linear, model, run, vae
from flowjax import distributions as fd
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam

import numpyro_genprior as ngp

ERRORS = Table()


# ---- models --------------------------------------------------------------------------------------


@ERRORS.mistake(NotImplementedError, r"Put @ngp\.latent on the model")
def nuts_without_the_decorator():
    mcmc = MCMC(NUTS(model), num_warmup=1, num_samples=1, progress_bar=False)
    mcmc.run(KEY, gan())


@ERRORS.mistake(NotImplementedError, r"Put @ngp\.latent on the model")
def svi_without_the_decorator():
    SVI(model, AutoNormal(model), Adam(1e-3), Trace_ELBO()).init(KEY, vae())


@ERRORS.mistake(ValueError, r"Observe the data through a likelihood")
def an_observed_gan():
    run(ngp.latent(model), gan(), X)


@ERRORS.mistake(ValueError, r"Reshape the data; measurements of an event belong")
def an_event_observed_by_data_of_another_shape():
    run(ngp.latent(model), vae(), jnp.zeros(2))


@ERRORS.mistake(TypeError, r'write ngp\.sample\("x", prior\) for this site')
def a_prior_for_a_model():
    ngp.latent(gan())


@ERRORS.mistake(TypeError, r"Make a prior of a network: ngp\.GANPrior")
def a_network_for_a_prior():
    ngp.sample("x", linear)


@ERRORS.mistake(ValueError, r"Observe the data through a likelihood")
def an_observed_gan_of_one_site():
    handlers.seed(lambda: ngp.sample("x", gan(), obs=X), KEY)()


@ERRORS.mistake(ValueError, r'Use noise="centered" \(or "auto"\), which accepts obs')
def an_observed_vae_with_noncentered_noise():
    run(ngp.latent(model, noise="noncentered"), vae(), X)


@ERRORS.mistake(ValueError, r"Observe the data through a likelihood|noise=")
def an_observed_vae_without_noise():
    run(ngp.latent(model, noise="omit"), vae(), X)


@ERRORS.mistake(ValueError, r'Leave noise="auto" for the usual choice')
def an_unknown_noise():
    ngp.latent(model, noise="white")


@ERRORS.mistake(ValueError, r'Leave noise="auto" for the usual choice, or use noise="omit"')
def noise_that_is_none():
    ngp.latent(model, noise=None)


@ERRORS.mistake(ValueError, r'Leave noise="auto" for the usual choice, or use noise="omit"')
def noise_that_is_the_word_none():
    ngp.sample("x", vae(), noise="none")


@ERRORS.mistake(ValueError, r'Use noise="omit" with record=False')
def an_unrecorded_event_with_its_noise_recorded():
    run(ngp.latent(model, record=False), vae())


@ERRORS.mistake(ValueError, r'Use noise="omit" with record=False')
def an_unrecorded_event_that_is_a_sample_site():
    run(ngp.latent(model, noise="centered", record=False), vae())


@ERRORS.mistake(ValueError, r"Leave this site out of the config of handlers\.reparam")
def latent_reparam_of_a_normal():
    config = {"x": ngp.LatentReparam()}
    run(handlers.reparam(model, config=config), dist.Normal(0.0, 1.0))


@ERRORS.mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def a_conditioned_event():
    run(handlers.condition(ngp.latent(model), {"x": X}), gan())


@ERRORS.mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def an_intervention_on_an_event():
    run(handlers.do(ngp.latent(model), {"x": X}), gan())


@ERRORS.mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def a_substituted_event():
    run(handlers.substitute(ngp.latent(model), {"x": X}), gan())


@ERRORS.mistake(ValueError, r"Give a value to 'x_latent', or observe 'x' through a likelihood")
def a_replayed_event():
    guide = run(lambda: numpyro.sample("x", dist.Normal(X, 1.0).to_event(1)))
    run(handlers.replay(ngp.latent(model), guide), gan())


@ERRORS.mistake(NotImplementedError, r"Decorate the model with @ngp\.latent")
def an_exact_prior_in_scan_without_the_decorator():
    def scanned(prior):
        scan(lambda carry, _: (carry, numpyro.sample("x", prior)), 0.0, None, length=2)

    run(scanned, flow())


@ERRORS.mistake(TypeError, r"Pass the prior itself; for other networks use numpyro\.param")
def param_of_a_network():
    run(lambda: ngp.param("net", linear))


@ERRORS.mistake(ValueError, r"Pass the network as an Equinox module")
def param_of_a_network_without_weights():
    run(lambda: ngp.param("prior", ngp.GANPrior(jnp.tanh, 2)))


@ERRORS.mistake(ValueError, r"Leave out scale=True")
def param_of_a_scale_that_is_not_there():
    run(lambda: ngp.param("prior", gan(), scale=True))


# ---- saving, traces, training --------------------------------------------------------------------


@ERRORS.mistake(FileNotFoundError, r"nowhere\.prior")
def loading_a_file_that_is_not_there():
    ngp.load("nowhere.prior")


@ERRORS.mistake(TypeError, r"(?i)prior")
def saving_a_network():
    ngp.save("network.prior", linear)


@ERRORS.mistake(ValueError, r"call mcmc\.run first|Call mcmc\.run first")
def arviz_of_a_run_that_did_not_happen():
    ngp.to_arviz(MCMC(NUTS(model), num_warmup=1, num_samples=1))


@ERRORS.mistake(TypeError, r"(?i)prior")
def decoding_by_a_network():
    ngp.decode(linear, jnp.zeros((4, 2)))


@ERRORS.mistake(TypeError, r"Derive the class from ngp\.Prior")
def checking_a_normal():
    ngp.testing.check_prior(dist.Normal(0.0, 1.0))


@ERRORS.mistake(ValueError, r"Choose from .*shapes")
def an_unknown_check():
    ngp.testing.check_prior(gan(), checks=["everything"])


@pytest.mark.parametrize("name", ERRORS)
def test_message(name):
    ERRORS.check(name)


def test_values_outside_the_support_do_not_raise():
    """Outside of the support, at NaN and at infinity the density is zero: NumPyro diverges."""
    prior = ngp.FlowPrior(fd.LogNormal(jnp.zeros(2)))
    bad = jnp.array([[-1.0, 1.0], [jnp.nan, 1.0], [jnp.inf, 1.0], [1.0, 1.0]])
    log_prob = jax.jit(prior.log_prob)(bad)
    assert np.isneginf(log_prob[:3]).all()
    assert np.isfinite(log_prob[3])


def test_a_model_without_latent_given_draws_of_the_latent_warns():
    draws = {"x_latent": jnp.ones((3, 2))}
    with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
        Predictive(model, draws)(KEY, gan())
    for handler in (handlers.substitute, handlers.condition):
        with pytest.warns(UserWarning, match=r"Decorate the model with @ngp\.latent"):
            run(handler(model, {"x_latent": Z}), gan())
