"""`to_arviz`, `decode` and `event_moments`, against NumPy, SciPy and xarray's own files."""

import copy
import subprocess
import sys

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
from numpyro.contrib.control_flow import scan
from numpyro.infer import MCMC, NUTS, Predictive

import numpyro_genprior as ngp
from numpyro_genprior.traces.predictive import _many

WEIGHTS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32) / 2
Y = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32) / 4
FIELDS = ("potential_energy", "energy", "num_steps", "accept_prob", "adapt_state.step_size")


def generator(z):
    return jnp.tanh(WEIGHTS @ z).reshape(3, 4)


@ngp.latent
def model(prior, y=None):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    with numpyro.plate("epoch", 2):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:, 0], s).to_event(1), obs=y)
    numpyro.deterministic("total", x.sum())
    numpyro.factor("tilt", -0.0)


def infer(model, *args, chains=2, draws=20, **kwargs):
    mcmc = MCMC(
        NUTS(model, max_tree_depth=4),
        num_warmup=40,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )
    mcmc.run(jax.random.key(0), *args, **kwargs)
    return mcmc


@pytest.fixture(scope="module")
def mcmc():
    return infer(model, ngp.GANPrior(generator, 2), Y, extra_fields=FIELDS)


@pytest.fixture(scope="module")
def trace(mcmc):
    return ngp.to_arviz(
        mcmc,
        coords={"row": [0.1, 0.2, 0.3], "epoch": ["first", "second"]},
        prior=7,
        posterior_predictive=True,
        log_likelihood=True,
        constant_data={"mask": np.ones((3, 4), bool)},
        key=jax.random.key(1),
        batch_size=16,
    )


def group_names(trace):
    return (
        {name.strip("/") for name in getattr(trace, "groups", ())}
        if not callable(trace.groups)
        else set(trace.groups())
    )


# ---- to_arviz ------------------------------------------------------------------------------------


def test_the_object_is_the_one_this_arviz_works_with(trace):
    kind = "DataTree" if int(az.__version__.split(".")[0]) >= 1 else "InferenceData"
    assert type(trace).__name__ == kind


def test_every_group_is_there(trace):
    expected = {"posterior", "prior", "prior_predictive", "posterior_predictive", "sample_stats"}
    assert group_names(trace) - {""} == expected | {
        "observed_data",
        "constant_data",
        "log_likelihood",
    }


@pytest.mark.parametrize(
    ("group", "name", "dims"),
    [
        ("posterior", "s", ("chain", "draw")),
        ("posterior", "total", ("chain", "draw")),
        ("posterior", "x", ("chain", "draw", "epoch", "row", "col")),
        ("posterior", "x_latent", ("chain", "draw", "epoch", "x_latent_dim")),
        ("posterior_predictive", "y", ("chain", "draw", "epoch", "y_dim_1")),
        ("prior", "x", ("chain", "draw", "epoch", "row", "col")),
        ("prior_predictive", "y", ("chain", "draw", "epoch", "y_dim_1")),
        ("log_likelihood", "y", ("chain", "draw", "epoch")),
        ("observed_data", "y", ("epoch", "y_dim_1")),
        ("constant_data", "mask", ("mask_dim_0", "mask_dim_1")),
    ],
)
def test_dimensions_have_names(trace, group, name, dims):
    assert trace[group][name].dims == dims


def test_coordinates(trace):
    x = trace["posterior"]["x"]
    assert x.coords["row"].values.tolist() == [0.1, 0.2, 0.3]
    assert x.coords["epoch"].values.tolist() == ["first", "second"]
    assert x.coords["col"].values.tolist() == [0, 1, 2, 3]
    assert trace["prior"].sizes["draw"] == 7


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


def test_predictive_draws_have_the_law_of_the_data(trace):
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


def test_draws_that_are_given(mcmc):
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


def test_names_by_site(mcmc):
    trace = ngp.to_arviz(mcmc, event_dims={"x": ("depth", "time"), "y": "time", "x_latent": "mode"})
    assert trace["posterior"]["x"].dims[-2:] == ("depth", "time")
    assert trace["posterior"]["x_latent"].dims[-1] == "mode"
    assert trace["observed_data"]["y"].dims == ("epoch", "time")


def test_an_exact_prior_without_decorator_and_two_sizes_of_events():
    def undecorated(first, second, y=None):
        a = numpyro.sample("a", first)
        b = numpyro.sample("b", second, infer={"event_dims": ["station"]})
        c = numpyro.sample("c", first.expand([2]))
        numpyro.deterministic(
            "rate", jnp.full((2, 3), numpyro.sample("rate_latent", dist.Normal(0.0, 1.0)))
        )
        numpyro.sample("y", dist.Normal(a[0] + b[0] + c[0, 0], 1.0).to_event(1), obs=y)

    twice = dist.transforms.AffineTransform(0.0, 2.0)
    first = ngp.FlowPrior(twice, latent=(2, 3), support=dist.constraints.real)
    second = ngp.FlowPrior(twice, latent=3, support=dist.constraints.real)
    trace = ngp.to_arviz(infer(undecorated, first, second, jnp.zeros(3), chains=1))
    assert trace["posterior"]["a"].dims == ("chain", "draw", "row", "col")
    assert trace["posterior"]["b"].dims == ("chain", "draw", "station")
    assert trace["posterior"]["c"].dims == ("chain", "draw", "c_dim_0", "row", "col")
    # two names as of an event and its latent, and no prior
    assert trace["posterior"]["rate"].dims == ("chain", "draw", "rate_dim_0", "rate_dim_1")


def test_names_in_scans_and_under_to_event():
    @ngp.latent
    def scanned(prior, y=None):
        def step(carry, _):
            x = numpyro.sample("x", prior)
            return carry + x, None

        total, _ = scan(step, jnp.zeros((3, 4)), None, length=2)
        pair = numpyro.sample("pair", prior.expand([2]).to_event(1))
        v = numpyro.sample("v", prior.thicken(0.1))
        mean = total[0] + pair[0, 0] + v[0]
        numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)

    run = infer(scanned, ngp.GANPrior(generator, 2), Y[0], chains=1, draws=2)
    for event_dims in (None, ("row", "col"), dict.fromkeys(("x", "pair", "v"), ("row", "col"))):
        posterior = ngp.to_arviz(run, event_dims=event_dims)["posterior"]
        for name in ("x", "pair"):
            assert posterior[name].dims[2:] == (f"{name}_dim_0", "row", "col")
            assert posterior[f"{name}_latent"].dims[2:] == (
                f"{name}_latent_dim_0",
                f"{name}_latent_dim",
            )
        assert posterior["v_noise"].dims[2:] == ("row", "col")
    trace = ngp.to_arviz(run, event_dims={"pair": ("number", "row", "col")})
    assert trace["posterior"]["pair"].dims[2:] == ("number", "row", "col")


def test_other_data_and_weights_do_not_compile_again(mcmc):
    calls = {"prior": 2, "posterior_predictive": True, "log_likelihood": True, "batch_size": 8}
    calls["key"] = jax.random.key(1)
    first = ngp.to_arviz(mcmc, **calls)
    before = _many._cache_size()
    other = copy.copy(mcmc)  # the draws do not matter
    other._args = (ngp.GANPrior(generator, 2), Y + 1.0)
    second = ngp.to_arviz(other, **calls)
    assert _many._cache_size() == before
    difference = second["observed_data"]["y"].values - first["observed_data"]["y"].values
    np.testing.assert_allclose(difference, 1.0, rtol=1e-5)
    found = second["posterior"]
    expected = scipy.stats.norm.logpdf(
        Y + 1.0, found["x"].values[..., 0, :], found["s"].values[..., None, None]
    )
    np.testing.assert_allclose(
        second["log_likelihood"]["y"], expected.sum(-1), rtol=1e-4, atol=1e-3
    )


def test_unrecorded_events_stay_out(mcmc):
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


def test_what_is_no_run():
    with pytest.raises(TypeError, match="MCMC object itself"):
        ngp.to_arviz({"x": np.zeros(3)})
    with pytest.raises(ValueError, match=r"Call mcmc\.run"):
        ngp.to_arviz(MCMC(NUTS(model), num_warmup=1, num_samples=1))


# ---- decode --------------------------------------------------------------------------------------


@pytest.fixture
def z(rng):
    return rng.normal(size=(2, 50, 2)).astype(np.float32)


@pytest.fixture
def events(z):
    return np.tanh(z @ WEIGHTS.T).reshape(2, 50, 3, 4)


@pytest.mark.parametrize("batch_size", [None, 1, 7, 100, 1000])
def test_decode(z, events, batch_size):
    prior = ngp.GANPrior(generator, 2)
    decoded = ngp.decode(prior, z, batch_size=batch_size)
    assert isinstance(decoded, np.ndarray)
    np.testing.assert_allclose(decoded, events, atol=1e-6)


def test_decode_into_a_file(z, events, tmp_path):
    out = np.memmap(tmp_path / "events", np.float32, "w+", shape=events.shape)
    assert ngp.decode(ngp.GANPrior(generator, 2), z, batch_size=16, out=out) is out
    np.testing.assert_allclose(out, events, atol=1e-6)


def shifted(z, c):
    return generator(z) + c


def test_decode_with_conditions(z, events, rng):
    prior = ngp.GANPrior(shifted, 2, condition=0.0)
    batch = ngp.decode(prior.given(jnp.arange(2.0)), z.transpose(1, 0, 2), batch_size=7)
    np.testing.assert_allclose(
        batch, events.transpose(1, 0, 2, 3) + np.arange(2.0)[:, None, None], atol=1e-5
    )
    c = rng.normal(size=(2, 50)).astype(np.float32)
    expected = events + c[..., None, None]
    for decoded in (
        ngp.decode(prior, z, condition=c, batch_size=16),
        ngp.decode(prior.given(c), z, batch_size=16),
    ):
        np.testing.assert_allclose(decoded, expected, atol=1e-5)


def test_decode_of_nested_and_wrapped_priors(z, events):
    inner = ngp.GANPrior(lambda w: jnp.sin(w), 2)
    nested = ngp.GANPrior(generator, inner)
    through = ngp.decode(nested, ngp.decode(inner, z), batch_size=16)
    expected = np.tanh(np.sin(z) @ WEIGHTS.T).reshape(events.shape)
    np.testing.assert_allclose(through, expected, atol=1e-6)
    wrapped = ngp.GANPrior(generator, 2).expand([50]).to_event(1)
    np.testing.assert_allclose(ngp.decode(wrapped, z, batch_size=1), events, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda p: ngp.decode(p, np.zeros((5, 3))), ValueError, "x_latent"),
        (lambda p: ngp.decode(p, np.zeros((5, 2)), batch_size=0), ValueError, "leave it out"),
        (lambda p: ngp.decode(p, np.zeros((5, 2)), batch_size=2.5), ValueError, "leave it out"),
        (lambda p: ngp.decode(p, np.zeros((5, 2)), out=np.zeros(3)), ValueError, "of that shape"),
        (lambda p: ngp.decode(dist.Normal(), np.zeros((5, 2))), TypeError, "prior first"),
        (lambda p: ngp.event_moments(p, np.zeros(2)), ValueError, "pass all draws"),
        (
            lambda p: ngp.event_moments(p, np.zeros((5, 2)), quantiles=(5, 95)),
            ValueError,
            r"0\.05",
        ),
        (
            lambda p: ngp.decode(p, np.zeros((5, 2)), condition=np.zeros(5)),
            ValueError,
            "takes no condition",
        ),
    ],
)
def test_mistakes_in_decoding(call, error, remedy):
    with pytest.raises(error, match=f"(?i){remedy}"):
        call(ngp.GANPrior(generator, 2))


# ---- event_moments -------------------------------------------------------------------------------


def noisy(z):
    return generator(z), 0.05 + 0.1 * jax.nn.sigmoid(generator(z))


def softplus_scale(events):
    return 0.05 + 0.1 / (1 + np.exp(-events))


@pytest.mark.parametrize("batch_size", [None, 7])
def test_moments_of_a_gan(z, events, batch_size):
    moments = ngp.event_moments(
        ngp.GANPrior(generator, 2), z, quantiles=(0.0, 0.3, 1.0), batch_size=batch_size
    )
    np.testing.assert_allclose(moments.mean, events.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(moments.sd, events.std((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(
        moments.quantiles, np.quantile(events, (0.0, 0.3, 1.0), (0, 1)), atol=1e-6
    )
    assert moments.num_draws == 100


@pytest.mark.parametrize("kind", ["fixed", "given by the decoder"])
def test_moments_with_decoder_noise(z, events, kind):
    if kind == "fixed":
        prior, scale = ngp.VAEPrior(generator, 2, scale=0.2), np.full_like(events, 0.2)
    else:
        prior, scale = ngp.VAEPrior(noisy, 2, scale=None), softplus_scale(events)
    moments = ngp.event_moments(prior, z, quantiles=(0.05, 0.5), batch_size=16)
    total = events.var((0, 1)) + (scale**2).mean((0, 1))
    np.testing.assert_allclose(moments.mean, events.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(moments.sd, np.sqrt(total), rtol=1e-5)
    for level, found in zip((0.05, 0.5), moments.quantiles, strict=True):
        for index in ((0, 0), (2, 3)):
            loc, sd = events[(..., *index)], scale[(..., *index)]
            root = scipy.optimize.brentq(
                lambda q, loc=loc, sd=sd, p=level: scipy.stats.norm.cdf(q, loc, sd).mean() - p,
                -9,
                9,
            )
            assert found[index] == pytest.approx(root, abs=1e-4)
    without = ngp.event_moments(prior, z, noise=False)
    np.testing.assert_allclose(without.sd, events.std((0, 1)), rtol=1e-5)
    assert without.quantiles.shape == (0, 3, 4)


def test_quantiles_by_blocks(z, events, monkeypatch):
    monkeypatch.setattr("numpyro_genprior.traces.moments.BLOCK_ELEMENTS", 500)  # 5 entries of 12
    moments = ngp.event_moments(ngp.GANPrior(generator, 2), z, quantiles=0.5, batch_size=30)
    np.testing.assert_allclose(moments.quantiles[0], np.median(events, (0, 1)), atol=1e-6)


def test_moments_keep_the_batch(z, events):
    wide = ngp.GANPrior(generator, 2).expand([50])
    np.testing.assert_allclose(ngp.event_moments(wide, z).mean, events.mean(0), atol=1e-6)
    two = ngp.GANPrior(shifted, 2, condition=jnp.arange(2.0))
    moments = ngp.event_moments(two, z.transpose(1, 0, 2), batch_size=16)
    expected = events.mean(1) + np.arange(2.0)[:, None, None]
    np.testing.assert_allclose(moments.mean, expected, atol=1e-5)


def test_moments_with_a_condition_a_draw(z, events, rng):
    prior = ngp.GANPrior(shifted, 2, condition=0.0)
    c = rng.normal(size=(2, 50)).astype(np.float32)
    moments = ngp.event_moments(prior, z, condition=c, batch_size=16)
    np.testing.assert_allclose(moments.sd, (events + c[..., None, None]).std((0, 1)), rtol=1e-5)
    with pytest.raises(ValueError, match="condition="):
        ngp.event_moments(prior.given(c), z)


def test_moments_of_a_flow(rng):
    affine = dist.transforms.LowerCholeskyAffine(jnp.arange(3.0), 2 * jnp.eye(3))
    flow = ngp.FlowPrior(affine, latent=3)
    z = rng.normal(size=(40, 3)).astype(np.float32)
    moments = ngp.event_moments(flow, z, batch_size=16)
    np.testing.assert_allclose(moments.mean, np.arange(3.0) + 2 * z.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.sd, 2 * z.std(0), rtol=1e-5)


def test_small_spread_on_a_large_offset(rng):
    prior = ngp.GANPrior(lambda z: 4096.0 + z, 3)
    z = rng.normal(size=(20_000, 3)).astype(np.float32)
    moments = ngp.event_moments(prior, z, batch_size=999)
    seen = (np.float32(4096.0) + z).astype(float)
    np.testing.assert_allclose(moments.sd, seen.std(0), rtol=1e-5)
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-7)


MEMORY = """
import resource, sys
import jax.numpy as jnp, numpy as np, numpyro_genprior as ngp
ramp = jnp.linspace(0.0, 1.0, 2**18).reshape(512, 512)
prior = ngp.VAEPrior(lambda z: z[0] + z[1] * ramp, 2, scale=0.1)
z = np.random.default_rng(0).normal(size=(4, 100, 2)).astype(np.float32)
unit = 1024 if sys.platform == "darwin" else 1  # bytes there, kilobytes elsewhere
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024
ngp.event_moments(prior, z[:, :2], batch_size=8)
before = peak()
moments = ngp.event_moments(prior, z, batch_size=8)
np.testing.assert_allclose(moments.mean[0, 0], z[..., 0].mean(), atol=1e-5)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource usage there")
def test_events_never_stand_in_memory():
    """400 draws of 2¹⁸ numbers are 400 MiB; a batch of 8 and the sums of an event are below 40."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True, timeout=240
    )
    assert float(done.stdout) < 100  # MiB
