"""`to_arviz` of what is not a run of MCMC: SMC, MGVI, and the guides of SVI."""

import functools

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import (
    AutoBNAFNormal,
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)

import numpyro_genprior as ngp
from numpyro_genprior.infer import MGVI, SMC, AutoFisherLaplace

WEIGHTS = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=3).astype(np.float32)
PRIOR = ngp.GANPrior(lambda z: (WEIGHTS @ z).reshape(2, 3), 2)
NUM_SAMPLES = 400


@ngp.latent
def model(prior, y=None):
    """A linear generator, whose upper row is observed with noise of known scale."""
    x = numpyro.sample("x", prior)
    noise = numpyro.param("noise", 0.5)
    numpyro.sample("y", dist.Normal(x[0], noise).to_event(1), obs=y)


def exact_posterior(noise=0.5):
    """Mean and covariance of the latent."""
    design = WEIGHTS[:3] / noise
    covariance = np.linalg.inv(np.eye(2) + design.T @ design)
    return covariance @ design.T @ Y / noise, covariance


def guide_function(prior, y=None):
    loc = numpyro.param("loc", jnp.zeros(2))
    extra = numpyro.sample("extra", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    numpyro.sample("x_latent", dist.Normal(loc + 0.0 * extra, 0.1).to_event(1))


def check_groups(trace, noise=0.5):
    """Events follow from the latents of the same draw, and densities from both."""
    posterior, x = trace["posterior"], trace["posterior"]["x"].values
    assert posterior["x"].dims == ("chain", "draw", "row", "col")
    assert set(posterior.data_vars) == {"x", "x_latent"}
    np.testing.assert_allclose(
        x.reshape(-1, 6), posterior["x_latent"].values[0] @ WEIGHTS.T, atol=1e-4
    )
    expected = scipy.stats.norm.logpdf(Y, x[..., 0, :], noise).sum(-1)
    np.testing.assert_allclose(trace["log_likelihood"]["y"], expected, rtol=1e-4, atol=1e-3)
    standard = (trace["posterior_predictive"]["y"].values - x[..., 0, :]) / noise
    assert scipy.stats.kstest(standard.ravel(), "norm").pvalue > 1e-3
    np.testing.assert_array_equal(trace["observed_data"]["y"], Y)
    assert trace["prior"]["x"].shape == (1, 5, 2, 3)


def check_moments(latents, number=None):
    """Draws of shape ``(draws, 2)`` have the moments of the exact posterior."""
    mean, covariance = exact_posterior()
    number = number or len(latents)
    error = np.sqrt(np.diag(covariance) / number)
    assert np.all(np.abs(latents.mean(0) - mean) < 5 * error)
    spread = np.diag(covariance) * np.sqrt(2 / number)
    assert np.all(np.abs(latents.var(0) - np.diag(covariance)) < 5 * spread)


GROUPS = {"prior": 5, "posterior_predictive": True, "log_likelihood": True}


# ---- runs ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_particles_of_smc(tmp_path):
    pytest.importorskip("blackjax")
    smc = SMC(model, num_particles=NUM_SAMPLES, progress_bar=False)
    result = smc.run(jax.random.key(0), PRIOR, Y)
    trace = ngp.to_arviz(result, key=jax.random.key(1), **GROUPS)
    check_groups(trace)
    np.testing.assert_array_equal(trace["posterior"]["x"][0], result.get_samples()["x"])
    attributes = trace["posterior"].attrs
    assert attributes["inference_method"] == "SMC"
    assert attributes["log_evidence"] == pytest.approx(result.log_evidence)
    assert attributes["log_evidence_error"] == pytest.approx(result.log_evidence_error)
    trace.to_netcdf(str(tmp_path / "trace.nc"))
    back = az.from_netcdf(str(tmp_path / "trace.nc"))
    assert back["posterior"].attrs["log_evidence"] == pytest.approx(result.log_evidence)


def test_independent_draws_of_mgvi():
    result = MGVI(model, progress_bar=False).run(jax.random.key(0), 2, PRIOR, Y)
    trace = ngp.to_arviz(result, key=jax.random.key(1), num_samples=NUM_SAMPLES, **GROUPS)
    check_groups(trace)
    latents = trace["posterior"]["x_latent"].values[0]
    check_moments(latents)
    assert trace["posterior"].attrs["inference_method"] == "MGVI"
    # antithetic pairs would have a correlation of -1 between the two of a pair
    pairs = latents - latents.mean(0)
    assert abs(np.corrcoef(pairs[::2, 0], pairs[1::2, 0])[0, 1]) < 5 / np.sqrt(NUM_SAMPLES / 2)


# ---- guides --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [
        AutoNormal,
        pytest.param(AutoDiagonalNormal, marks=pytest.mark.slow),
        pytest.param(AutoMultivariateNormal, marks=pytest.mark.slow),
        pytest.param(AutoLowRankMultivariateNormal, marks=pytest.mark.slow),
        pytest.param(AutoIAFNormal, marks=pytest.mark.slow),
        pytest.param(AutoBNAFNormal, marks=pytest.mark.slow),
        AutoDelta,
        pytest.param(AutoLaplaceApproximation, marks=pytest.mark.slow),
        AutoFisherLaplace,
    ],
)
@pytest.mark.filterwarnings("ignore:AutoFisherLaplace is not at a mode")
def test_guides(family):
    guide = family(model)
    svi = SVI(model, guide, numpyro.optim.Adam(0.1), Trace_ELBO())
    with jax.numpy_rank_promotion("allow"):  # AutoBNAFNormal relies on it
        params = dict(svi.get_params(svi.init(jax.random.key(0), PRIOR, Y)))
    params["noise"] = jnp.array(0.7)
    trace = ngp.to_arviz(
        guide, PRIOR, y=Y, params=params, key=jax.random.key(1), num_samples=60, **GROUPS
    )
    check_groups(trace, noise=0.7)
    assert trace["posterior"].attrs["inference_method"] == f"SVI ({family.__name__})"
    assert trace["posterior"].sizes["draw"] == 60


def test_draws_have_the_distribution_of_the_guide():
    """Parameters from elsewhere, and a guide that has not run before."""
    loc, scale = np.array([1.0, -2.0], np.float32), np.array([0.1, 3.0], np.float32)
    params = {"x_latent_auto_loc": loc, "x_latent_auto_scale": scale, "noise": 0.5}
    trace = ngp.to_arviz(AutoNormal(model), PRIOR, Y, params=params, key=jax.random.key(1))
    latents = trace["posterior"]["x_latent"].values
    assert latents.shape == (1, 1000, 2)
    standard = (latents - loc) / scale
    assert scipy.stats.kstest(standard.ravel(), "norm").pvalue > 1e-3


def test_a_gaussian_at_the_mode():
    estimate = ngp.infer.find_map(model, jax.random.key(0), PRIOR, Y, num_starts=2)
    guide = AutoFisherLaplace.from_map(estimate)
    trace = ngp.to_arviz(guide, key=jax.random.key(1), num_samples=NUM_SAMPLES, **GROUPS)
    check_groups(trace)
    check_moments(trace["posterior"]["x_latent"].values[0])


def test_events_follow_the_arguments_that_are_given():
    """NumPyro's guides keep the arguments of their first call; events must not."""
    guide = AutoNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(0.1), Trace_ELBO())
    other = ngp.GANPrior(lambda z: jnp.zeros((2, 3)), 2)
    params = svi.get_params(svi.init(jax.random.key(0), other, Y))
    trace = ngp.to_arviz(guide, PRIOR, Y, params=params, key=jax.random.key(1), num_samples=20)
    latents = trace["posterior"]["x_latent"].values[0]
    x = trace["posterior"]["x"].values.reshape(20, 6)
    np.testing.assert_allclose(x, latents @ WEIGHTS.T, atol=1e-4)


def test_weights_trained_under_svi():
    def trained(prior, y=None):
        x = numpyro.sample("x", ngp.param("prior", prior))
        numpyro.sample("y", dist.Normal(x[0], 0.5).to_event(1), obs=y)

    trained = ngp.latent(trained)
    weights = jax.tree_util.Partial(lambda w, z: (w @ z).reshape(2, 3), jnp.asarray(WEIGHTS))
    guide = AutoNormal(trained)
    svi = SVI(trained, guide, numpyro.optim.Adam(0.1), Trace_ELBO())
    prior = ngp.GANPrior(weights, 2)
    params = dict(svi.get_params(svi.init(jax.random.key(0), prior, Y)))
    params["prior"] = jax.tree.map(lambda leaf: 3.0 * leaf, params["prior"])
    trace = ngp.to_arviz(guide, prior, Y, params=params, key=jax.random.key(1), num_samples=20)
    latents = trace["posterior"]["x_latent"].values[0]
    x = trace["posterior"]["x"].values.reshape(20, 6)
    np.testing.assert_allclose(x, 3 * latents @ WEIGHTS.T, rtol=1e-4, atol=1e-4)


def test_a_guide_that_is_a_function():
    params = {"loc": np.array([1.0, 2.0], np.float32), "noise": 0.7}
    trace = ngp.to_arviz(
        guide_function,
        PRIOR,
        Y,
        params=params,
        model=model,
        key=jax.random.key(1),
        num_samples=NUM_SAMPLES,
        **GROUPS,
    )
    check_groups(trace, noise=0.7)
    standard = (trace["posterior"]["x_latent"].values - params["loc"]) / 0.1
    assert scipy.stats.kstest(standard.ravel(), "norm").pvalue > 1e-3
    assert trace["posterior"].attrs["inference_method"] == "SVI (guide_function)"


def test_parts_of_a_list_of_guides_are_independent():
    def pair(y=None):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.deterministic("sum", a + b)
        numpyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    guide = AutoGuideList(pair)
    for name in ("a", "b"):
        shown = numpyro.handlers.block(pair, expose=[name])
        guide.append(AutoNormal(shown, prefix=f"auto_{name}"))
    svi = SVI(pair, guide, numpyro.optim.Adam(0.1), Trace_ELBO())
    params = svi.get_params(svi.init(jax.random.key(0), jnp.array(1.0)))
    trace = ngp.to_arviz(guide, jnp.array(1.0), params=params, key=jax.random.key(1))
    posterior = trace["posterior"]
    a, b = posterior["a"].values.ravel(), posterior["b"].values.ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(1000)
    np.testing.assert_allclose(posterior["sum"].values.ravel(), a + b, rtol=1e-5)


# ---- mistakes ------------------------------------------------------------------------------------


def subsampled(y, size=None):
    with numpyro.plate("rows", len(y), subsample_size=size):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=numpyro.subsample(jnp.asarray(y), 0))


KEY = jax.random.key(0)
PARAMS = {"x_latent_auto_loc": jnp.zeros(2), "x_latent_auto_scale": jnp.ones(2)}


@functools.cache
def ran():
    mcmc = MCMC(NUTS(model), num_warmup=1, num_samples=1, progress_bar=False)
    mcmc.run(KEY, PRIOR, Y)
    return mcmc


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda: ngp.to_arviz(model, PRIOR, Y, key=KEY), ValueError, "pass model="),
        (lambda: ngp.to_arviz(AutoNormal(model), PRIOR, Y, key=KEY), ValueError, "pass params="),
        (
            lambda: ngp.to_arviz(AutoNormal(model), PRIOR, Y, params=PARAMS),
            ValueError,
            "pass key=",
        ),
        (
            lambda: ngp.to_arviz(
                AutoNormal(model), PRIOR, Y, params=PARAMS, key=KEY, num_samples=0
            ),
            ValueError,
            "leave it out for 1000",
        ),
        (
            lambda: ngp.to_arviz(AutoNormal(model), prior=PRIOR, y=Y, params=PARAMS, key=KEY),
            ValueError,
            "by position",
        ),
        (
            lambda: ngp.to_arviz(guide_function, jnp.ones(3), params={}, model=subsampled, key=KEY),
            ValueError,
            "the model that the guide was trained for",
        ),
        (
            lambda: ngp.to_arviz(
                AutoNormal(subsampled),
                jnp.ones(5),
                size=2,
                params={"z_auto_loc": jnp.zeros(5), "z_auto_scale": jnp.ones(5)},
                key=KEY,
            ),
            ValueError,
            "take all of the data",
        ),
        (lambda: ngp.to_arviz(ran(), PRIOR), ValueError, "leave them out"),
        (lambda: ngp.to_arviz(ran(), y=Y), ValueError, "leave them out"),
        (lambda: ngp.to_arviz(ran(), num_samples=5), ValueError, "leave them out"),
        (lambda: ngp.to_arviz(NUTS(model)), TypeError, r"run it in numpyro\.infer\.MCMC"),
        (lambda: ngp.to_arviz(MGVI(model)), TypeError, "which its run"),
        (lambda: ngp.to_arviz(PRIOR), TypeError, "MCMC object itself"),
        (
            lambda: ngp.to_arviz(
                SVI(model, AutoNormal(model), numpyro.optim.Adam(0.1), Trace_ELBO())
            ),
            TypeError,
            "pass the guide",
        ),
        (
            lambda: ngp.to_arviz(ngp.infer.find_map(model, KEY, PRIOR, Y, num_starts=2)),
            TypeError,
            "from_map",
        ),
    ],
)
def test_mistakes(call, error, remedy):
    with pytest.raises(error, match=f"(?i){remedy}"):
        call()
