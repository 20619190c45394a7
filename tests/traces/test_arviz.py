"""`to_arviz` of a run of MCMC, against SciPy and the files that xarray writes."""

import copy

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.infer import MCMC, NUTS, Predictive
from trace_model import Y, generator, infer, model

import numpyro_genprior as ngp
from numpyro_genprior.traces.predictive import _compiled_map


def group_names(trace):
    return (
        {name.strip("/") for name in getattr(trace, "groups", ())}
        if not callable(trace.groups)
        else set(trace.groups())
    )


def test_the_object_is_of_the_installed_arviz(trace):
    kind = "DataTree" if int(az.__version__.split(".")[0]) >= 1 else "InferenceData"
    assert type(trace).__name__ == kind


def test_every_group_is_there(trace):
    expected = {"posterior", "prior", "prior_predictive", "posterior_predictive", "sample_stats"}
    assert group_names(trace) - {""} == expected | {
        "observed_data",
        "constant_data",
        "log_likelihood",
    }


def test_draws_and_data_are_those_of_the_run(trace, mcmc):
    samples = mcmc.get_samples(group_by_chain=True)
    for name in ("s", "x", "x_latent", "total"):
        np.testing.assert_array_equal(trace["posterior"][name], samples[name])
    np.testing.assert_array_equal(trace["observed_data"]["y"], Y)
    assert set(trace["observed_data"].data_vars) == {"y"}


def test_statistics_have_arviz_names(trace, mcmc):
    stats, fields = trace["sample_stats"], mcmc.get_extra_fields(group_by_chain=True)
    np.testing.assert_array_equal(stats["lp"], -fields["potential_energy"])
    np.testing.assert_array_equal(stats["diverging"], fields["diverging"])
    np.testing.assert_array_equal(stats["n_steps"], fields["num_steps"])
    np.testing.assert_array_equal(stats["acceptance_rate"], fields["accept_prob"])
    np.testing.assert_array_equal(stats["step_size"], fields["adapt_state.step_size"])
    assert np.all(2 ** (stats["tree_depth"] - 1) <= stats["n_steps"])
    assert np.all(stats["n_steps"] < 2 ** stats["tree_depth"])
    assert stats["energy"].dims == ("chain", "draw")


def test_log_likelihood_against_scipy(trace):
    posterior = trace["posterior"]
    scale = posterior["s"].values[..., None, None]
    expected = scipy.stats.norm.logpdf(Y, posterior["x"].values[..., 0, :], scale).sum(-1)
    np.testing.assert_allclose(trace["log_likelihood"]["y"], expected, rtol=1e-4, atol=1e-3)


def test_predictive_draws_have_the_distribution_of_the_data(trace):
    posterior, drawn = trace["posterior"], trace["posterior_predictive"]["y"].values
    standard = (drawn - posterior["x"].values[..., 0, :]) / posterior["s"].values[..., None, None]
    assert scipy.stats.kstest(standard.ravel(), "norm").pvalue > 1e-3
    prior, drawn = trace["prior"], trace["prior_predictive"]["y"].values
    standard = (drawn - prior["x"].values[..., 0, :]) / prior["s"].values[..., None, None]
    assert scipy.stats.kstest(standard.ravel(), "norm").pvalue > 1e-3
    assert scipy.stats.kstest(prior["x_latent"].values.ravel(), "norm").pvalue > 1e-3


def test_the_trace_survives_netcdf(trace, tmp_path):
    trace.to_netcdf(str(tmp_path / "trace.nc"))
    back = az.from_netcdf(str(tmp_path / "trace.nc"))
    np.testing.assert_array_equal(back["posterior"]["x"], trace["posterior"]["x"])
    assert back["posterior"]["x"].dims == trace["posterior"]["x"].dims


def test_draws_given_by_the_caller(mcmc):
    prior = ngp.GANPrior(generator, 2)
    drawn = Predictive(model, mcmc.get_samples())(jax.random.key(3), prior)
    before = Predictive(model, num_samples=5)(jax.random.key(4), prior)
    trace = ngp.to_arviz(
        mcmc, posterior_predictive={"y": drawn["y"]}, prior=before, predictions={"y": drawn["y"]}
    )
    for group in ("posterior_predictive", "predictions"):
        np.testing.assert_array_equal(trace[group]["y"], drawn["y"].reshape(2, 20, 2, 4))
    np.testing.assert_array_equal(trace["prior"]["x"][0], before["x"])
    np.testing.assert_array_equal(trace["prior_predictive"]["y"][0], before["y"])


def test_other_data_and_weights_do_not_compile_again(mcmc):
    calls = {"prior": 2, "posterior_predictive": True, "log_likelihood": True, "batch_size": 8}
    calls["key"] = jax.random.key(1)
    first = ngp.to_arviz(mcmc, **calls)
    before = _compiled_map._cache_size()
    other = copy.copy(mcmc)  # the draws do not matter
    other._args = (ngp.GANPrior(generator, 2), Y + 1.0)
    second = ngp.to_arviz(other, **calls)
    assert _compiled_map._cache_size() == before
    difference = second["observed_data"]["y"].values - first["observed_data"]["y"].values
    np.testing.assert_allclose(difference, 1.0, rtol=1e-5)
    found = second["posterior"]
    expected = scipy.stats.norm.logpdf(
        Y + 1.0, found["x"].values[..., 0, :], found["s"].values[..., None, None]
    )
    np.testing.assert_allclose(
        second["log_likelihood"]["y"], expected.sum(-1), rtol=1e-4, atol=1e-3
    )


def test_unrecorded_events_are_left_out(mcmc):
    def plain(prior, y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[0], 0.1).to_event(1), obs=y)

    prior = ngp.GANPrior(generator, 2)
    lean = infer(ngp.latent(plain, record=False), prior, Y[0], chains=1)
    trace = ngp.to_arviz(
        lean, event_dims=("row", "col"), posterior_predictive=True, key=jax.random.key(0)
    )
    assert set(trace["posterior"].data_vars) == {"x_latent"}
    assert trace["posterior_predictive"]["y"].shape == (1, 20, 4)


@pytest.mark.parametrize(
    ("kwargs", "remedy"),
    [
        ({"event_dims": ("a", "b", "c")}, "name them site by site"),
        ({"event_dims": {"z": ("a",)}}, "check the spelling"),
        ({"event_dims": {"x": ("a",)}}, "plates give their own names"),
        ({"event_dims": {"x": ("n", "m"), "y": ("n",)}}, "its own names"),
        ({"event_dims": ("n", "n")}, "each plate, its own name"),
        ({"event_dims": {"y": ("draw",)}}, "other than chain and draw"),
        ({"prior": True}, "pass e.g. prior=500"),
        ({"batch_size": 2.5}, "leave it out"),
        ({"coords": {"row": [1, 2]}}, "one coordinate for each"),
        ({"prior": 3}, "pass key="),
        ({"prior": 0, "key": jax.random.key(0)}, "pass e.g. prior=500"),
        ({"batch_size": 0}, "leave it out"),
        ({"posterior_predictive": True}, "pass key="),
        ({"posterior_predictive": {"y": np.zeros((7, 2, 4))}}, "one draw of it for every draw"),
    ],
)
def test_mistakes(mcmc, kwargs, remedy):
    with pytest.raises(ValueError, match=f"(?i){remedy}"):
        ngp.to_arviz(mcmc, **kwargs)


def test_objects_that_hold_no_draws():
    with pytest.raises(TypeError, match="MCMC object itself"):
        ngp.to_arviz({"x": np.zeros(3)})
    with pytest.raises(ValueError, match=r"Call mcmc\.run"):
        ngp.to_arviz(MCMC(NUTS(model), num_warmup=1, num_samples=1))
