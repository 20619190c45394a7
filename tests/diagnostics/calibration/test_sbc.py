"""Calibration by simulation: exact posteriors pass, wrong ones are named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS
from numpyro.infer.autoguide import AutoNormal
from scipy import stats

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics import sbc, tarp
from numpyro_genprior.diagnostics.calibration.convergence import (
    Convergence,
)
from numpyro_genprior.diagnostics.calibration.ranks import Ranks
from numpyro_genprior.diagnostics.calibration.sbc import SBC
from numpyro_genprior.infer import MCMCMethod, SVIMethod

MIXING = jnp.array([[1.0, 0.95], [0.95, 1.0]])
PRIOR = ngp.GANPrior(lambda z: MIXING @ z, 2)
SMALL = {"num_replications": 64, "progress_bar": False}
EXACT_LAPLACE = SVIMethod(ngp.infer.AutoFisherLaplace, num_samples=63)  # exact if linear
LAPLACE = {**SMALL, "method": EXACT_LAPLACE, "batch_size": 24}


@ngp.latent
def linear(y, noise=0.3):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


def noisier(y):
    return linear(y, noise=0.9)


class Exact:
    """A guide that returns the posterior of `linear`, in closed form."""

    def __init__(self, model):
        self.model = model

    def __call__(self, *args):
        loc = numpyro.param("loc", jnp.zeros(2))
        numpyro.sample("x_latent", dist.Normal(loc, 1.0).to_event(1))

    def sample_posterior(self, key, params, data, *args, sample_shape=()):
        precision = jnp.eye(2) + MIXING.T @ MIXING / 0.09
        mean = jnp.linalg.solve(precision, MIXING.T @ data["y"] / 0.09)
        posterior = dist.MultivariateNormal(mean, precision_matrix=precision)
        return {"x_latent": posterior.sample(key, sample_shape)}


class Ignorant(Exact):
    """A guide that returns the prior."""

    def sample_posterior(self, key, params, *args, sample_shape=()):
        return {"x_latent": jax.random.normal(key, (*sample_shape, 2))}


def closed_form(guide):
    """A method for guides that need no fit."""
    return SVIMethod(guide, num_steps=1, num_samples=63)


def test_an_exact_guide_passes(key):
    found = sbc(linear, key, jnp.zeros(2), **LAPLACE)
    assert found.verdict == "calibrated"
    assert set(found.ranks) == {
        "x_latent[0]", "x_latent[1]", "x[0]", "x[1]", "mean(x)", "rms(x)", "log_likelihood",
    }  # fmt: skip
    assert all(r.shape == (64,) for r in found.ranks.values())
    assert found.num_draws == 63
    assert "as far as 64 replications can tell" in str(found)
    assert "This cannot detect" in str(found)


def test_a_wrong_sigma_is_found(key):
    found = sbc(linear, key, jnp.zeros(2), simulate=noisier, **LAPLACE)
    assert found.verdict == "miscalibrated"
    assert found.failing["x[0]"] == "posterior too narrow"
    assert found.simultaneous.outside["x[0]"]
    assert found.p_values["x[0]"] < 1e-3
    assert "log_likelihood" in str(found)


def test_a_guide_without_correlations_is_too_narrow(key):
    options = {**SMALL, "num_replications": 128}
    method = SVIMethod(AutoNormal, num_steps=400, num_samples=63)
    found = sbc(linear, key, jnp.zeros(2), method=method, **options)
    assert found.failing["x_latent[0]"] == "posterior too narrow"


def test_only_a_quantity_of_the_data_detects_a_posterior_that_equals_the_prior(key):
    found = sbc(linear, key, jnp.zeros(2), method=closed_form(Ignorant), **SMALL)
    assert list(found.failing) == ["log_likelihood"]


@pytest.mark.slow
def test_nuts_passes(key):
    kernel = functools.partial(NUTS, max_tree_depth=4)
    method = MCMCMethod(kernel, num_warmup=150, num_samples=252)
    functionals = {"gap": lambda sites: sites["x"][0] - sites["y"][0]}
    found = sbc(linear, key, jnp.zeros(2), method=method, functionals=functionals, **SMALL)
    assert found.verdict == "calibrated"
    assert set(found.ranks) == {"gap", "x_latent[0]", "x_latent[1]", "log_likelihood"}
    assert found.convergence.num_nonfinite == 0
    assert found.convergence.ess > 15


@pytest.mark.slow
def test_kernels_on_flat_coordinates_pass(key):
    method = MCMCMethod(ngp.infer.EllipticalSlice, num_warmup=50, num_samples=504)
    found = sbc(linear, key, jnp.zeros(2), method=method, **SMALL)
    assert found.verdict == "calibrated"


@pytest.mark.slow
def test_several_chains_for_each_data_set_pass(key):
    method = MCMCMethod(
        functools.partial(NUTS, max_tree_depth=4), num_warmup=150, num_samples=128, num_chains=2
    )
    found = sbc(linear, key, jnp.zeros(2), method=method, **SMALL)
    assert found.verdict == "calibrated"
    assert found.num_draws >= 31


def test_tarp(key):
    exact = tarp(linear, key, jnp.zeros(2), method=closed_form(Exact), **SMALL)
    assert exact.verdict == "calibrated"
    assert "Jointly calibrated" in str(exact)
    prior = tarp(linear, key, jnp.zeros(2), method=closed_form(Ignorant), **SMALL)
    assert list(prior.failing) == ["reference by the data"]
    assert "too far from the reference" in str(prior)


def without_data(y=None):
    numpyro.sample("y", dist.Normal(numpyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=y)


def discrete(y):
    z = numpyro.sample("z", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def explodes(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z / 0.0, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "options", "error", "match"),
    [
        (linear, {"kernel": NUTS, "guide": AutoNormal}, ValueError, "Call it once for each"),
        (linear, {"kernel": NUTS(linear)}, TypeError, "Pass kernel=NUTS"),
        (linear, {"guide": AutoNormal(linear)}, TypeError, "Pass guide=AutoNormal"),
        (linear, {"kernel": AutoNormal}, TypeError, "Pass kernel=NUTS"),
        (linear, {"guide": NUTS}, TypeError, "Pass guide=AutoNormal"),
        (linear, {"method": NUTS}, TypeError, r"Pass method=ngp\.infer\.MCMCMethod"),
        (linear, {"method": EXACT_LAPLACE, "guide": AutoNormal}, ValueError, "Call it once for"),
        (linear, {"num_replications": 4}, ValueError, "Use 100 or more"),
        (
            linear,
            {"method": MCMCMethod(NUTS, num_samples=3)},
            ValueError,
            "Leave num_samples at its",
        ),
        (linear, {"observed": ("x",)}, ValueError, "Pass data of the right shape"),
        (without_data, {}, ValueError, "name the sites"),
        (discrete, {}, ValueError, "Marginalise it"),
        (explodes, {}, ValueError, "Inspect prior draws"),
        (linear, {"functionals": {"f": lambda s: s["w"]}}, ValueError, "record=True"),
    ],
)
def test_errors_say_what_to_do(key, model, options, error, match):
    args = () if model is without_data else (jnp.zeros(2 if model is linear else ()),)
    with pytest.raises(error, match=match):
        sbc(model, key, *args, progress_bar=False, **options)


def test_chains_that_have_not_mixed_are_named_beside_the_verdict():
    def result(convergence):
        ranks = Ranks(np.zeros((64, 1), int), 15, convergence)
        return SBC.from_ranks(ranks, ["x_latent[0]"], 0.05)

    good = result(Convergence(64, 0, 0, 0, 0, 15.0))
    assert str(good).startswith("Miscalibrated: 1 of 1")
    assert good.warnings == ()
    short = result(Convergence(64, 0, 0, 50, 40, 4.0))
    start = "Miscalibrated, possibly due to unreliable inference: 1 of 1"
    assert str(short).startswith(start)
    assert short.warnings[0] == "50 of 64 replications had a split r_hat above 1.1."
    assert "raise num_warmup and num_samples" in short.warnings[-1]
    assert all(warning in str(short) for warning in short.warnings)


@pytest.fixture
def ranked(rng):
    narrow = (rng.beta(0.4, 0.4, 256) * 128).astype(int)
    ranks = np.stack([rng.integers(0, 128, 256), narrow], axis=1)
    return SBC.from_ranks(
        Ranks(ranks, 127, Convergence(256, 0, 0, 0, 0, 127.0)), ["good", "x/y[0]"], 0.05
    )


def test_a_result_as_a_data_set(ranked):
    assert repr(ranked) == (
        "SBC(verdict='miscalibrated', quantities=2, failing=1, replications=256)"
    )
    data = ranked.to_dataset()
    assert dict(data.sizes) == {"quantity": 2, "replication": 256, "point": 127}
    np.testing.assert_array_equal(data["rank"].sel(quantity="good"), ranked.ranks["good"])
    assert data.adjusted_p_value.sel(quantity="x/y[0]") == ranked.adjusted["x/y[0]"]


def test_a_result_as_what_the_plots_of_arviz_read(ranked):
    transforms = ranked.to_datatree()["prior_sbc"].to_dataset()
    assert set(transforms) == {"good", "x|y[0]"}
    assert dict(transforms.sizes) == {"chain": 1, "draw": 256}
    for name, variable in zip(ranked.ranks, transforms.data_vars.values(), strict=True):
        np.testing.assert_array_equal(np.floor(variable[0] * 128), ranked.ranks[name])
    assert stats.kstest(transforms["good"].values[0], "uniform").pvalue > 0.01


def test_arviz_draws_it(ranked):
    arviz_plots = pytest.importorskip("arviz_plots")
    drawn = arviz_plots.plot_ecdf_pit(ranked.to_datatree(), backend="none")
    assert set(drawn.viz.children["ecdf_lines"].data_vars) == {"good", "x|y[0]"}
