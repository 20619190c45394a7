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


def test_given_events_replace_those_of_the_prior(key):
    """The data are drawn given them; events decoded inside a scan are refused."""
    prior = ngp.GANPrior(lambda z: jnp.tile(z, 3), 1)

    @ngp.latent
    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 1e-4).to_event(1), obs=y)

    @ngp.latent
    def scanned(y):
        def step(carry, y):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(x, 1e-4).to_event(1), obs=y)
            return carry, None

        scan(step, 0.0, y)

    args, event = (jnp.zeros(3),), jnp.array([7.0, 8.0, 9.0])
    sites = read_sites(model, args, {}, None, "sbc")
    drawn = simulate(model, sites, key, args, {}, {"x": event})
    np.testing.assert_allclose(drawn["y"], event, atol=1e-2)
    assert set(drawn) == {"x", "y"}
    args = (jnp.zeros((2, 3)),)
    sites = read_sites(scanned, args, {}, None, "sbc")
    with pytest.raises(ValueError, match="Sample the event before the scan"):
        simulate(scanned, sites, key, args, {}, {"x": jnp.stack([event, event])})
