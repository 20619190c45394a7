"""Simulated data: which sites are drawn, and the likelihood of what was drawn."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from scipy import stats

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics.calibration.simulation import evaluate, read_sites, simulate


def test_data_in_a_scan_are_simulated_and_conditioned(key):
    def model(y):
        rho = numpyro.sample("rho", dist.Normal(0.0, 1.0))

        def step(state, y):
            state = numpyro.sample("state", dist.Normal(rho * state, 1.0))
            numpyro.sample("y", dist.Normal(state, 0.5), obs=y)
            return state, None

        scan(step, 0.0, y)

    args = (jnp.zeros(4),)
    sites = read_sites(model, args, {}, None, "sbc")
    assert (sites.data, set(sites.latents)) == (("y",), {"rho", "state"})
    drawn = simulate(model, sites, key, args, {})
    assert np.all(np.asarray(drawn["y"]) != 0)
    latents = {name: drawn[name] for name in sites.latents}
    at = evaluate(model, sites, {"y": drawn["y"]}, latents, args, {})
    expected = stats.norm.logpdf(drawn["y"], drawn["state"], 0.5).sum()
    np.testing.assert_allclose(at["log_likelihood"], expected, rtol=1e-5)


def test_an_observed_event_of_a_prior_is_simulated(key):
    prior = ngp.VAEPrior(lambda z: jnp.tile(z, 3), 1, scale=0.1)

    @ngp.latent
    def model(x):
        numpyro.sample("x", prior, obs=x)

    args = (jnp.zeros(3),)
    sites = read_sites(model, args, {}, None, "sbc")
    drawn = simulate(model, sites, key, args, {})
    latents = {"x_latent": drawn["x_latent"]}
    at = evaluate(model, sites, {"x": drawn["x"]}, latents, args, {})
    expected = stats.norm.logpdf(drawn["x"], drawn["x_latent"], 0.1).sum()
    np.testing.assert_allclose(at["log_likelihood"], expected, rtol=1e-4)


def test_terms_that_are_not_simulated_warn():
    def model(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("extra", -(z**2))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    with pytest.warns(UserWarning, match="leaves extra as they are"):
        assert read_sites(model, (0.0,), {}, None, "sbc").data == ("y",)
