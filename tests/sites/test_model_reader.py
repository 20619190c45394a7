"""The reader of a model: roles, links between events and latents, plates, shapes, masks, scales."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from scipy import stats
from site_models import X, decorated, flow, gan, generate, one_site, rows, trace_of, vae

import numpyro_genprior as ngp
from numpyro_genprior.sites.likelihood import log_likelihood, pointwise_log_likelihood
from numpyro_genprior.sites.model_reader import Plate, read_model, read_trace


def roles(sites):
    return {name: site.role for name, site in sites.items()}


def nested():
    """A GAN whose latent is the event of a GAN."""
    return ngp.GANPrior(generate, ngp.GANPrior(jnp.sin, 2))


def test_events_and_what_they_are_made_of():
    sites = read_model(ngp.latent(one_site), (vae(),))
    assert roles(sites) == {"x_latent": "latent", "x_noise": "noise", "x": "event"}
    assert (sites["x"].latent, sites["x"].noise) == ("x_latent", "x_noise")
    assert sites["x_latent"].event == sites["x_noise"].event == "x"
    assert sites.events() == ("x",)
    assert sites.made_from("x") == ("x_latent", "x_noise")
    assert sites.latents == ("x_latent", "x_noise")
    assert [sites[name].kind for name in ("x_latent", "x")] == ["sample", "deterministic"]


def test_nested_latents():
    sites = read_model(ngp.latent(one_site), (nested(),))
    assert roles(sites) == {"x_latent_latent": "latent", "x_latent": "latent", "x": "event"}
    assert (sites["x"].latent, sites["x_latent"].latent) == ("x_latent", "x_latent_latent")
    assert (sites["x_latent"].event, sites["x_latent_latent"].event) == ("x", "x_latent")
    assert sites["x_latent"].is_event
    assert sites.events() == ("x",)
    assert sites.made_from("x") == ("x_latent", "x_latent_latent")
    assert sites.latents == ("x_latent_latent",)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("prior", [vae, nested])
def test_scopes(inside, prior):
    """The marks of the sites hold names from before the scopes outside."""
    if inside:
        model = ngp.latent(handlers.scope(one_site, prefix="a"))
    else:
        model = handlers.scope(ngp.latent(one_site), prefix="a")
    plain = read_model(ngp.latent(one_site), (prior(),))
    sites = read_model(handlers.scope(model, prefix="b"), (prior(),))
    expected = {
        f"b/a/{name}": (site.role, site.event and f"b/a/{site.event}")
        for name, site in plain.items()
    }
    assert {name: (site.role, site.event) for name, site in sites.items()} == expected


def test_a_site_that_the_user_names_like_a_latent():
    def model():
        numpyro.sample("foo_latent", dist.Normal(0.0, 1.0))
        numpyro.sample("foo_noise", dist.Normal(0.0, 1.0))
        numpyro.deterministic("foo", jnp.zeros(2))
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)

    sites = read_model(model)
    assert roles(sites) == dict.fromkeys(("foo_latent", "foo_noise", "foo"), "other") | {
        "y": "data"
    }
    assert sites.events() == ()
    assert sites["foo_latent"].event is None
    assert sites["foo"].latent is None


@pytest.mark.parametrize("handler", ["latent", "reparam"])
def test_noise_that_is_centered(handler):
    """The event is then a sample site, whatever handler made it one."""
    if handler == "latent":
        model = ngp.latent(one_site, noise="centered")
    else:
        model = handlers.reparam(one_site, config={"x": ngp.LatentReparam("centered")})
    sites = read_model(model, (vae(),))
    assert roles(sites) == {"x_latent": "latent", "x": "event"}
    assert sites["x"].kind == "sample"
    assert sites["x"].latent == "x_latent"
    assert sites.events() == ("x",)
    assert sites.events(data=("x",)) == ()
    observed = read_model(model, (vae(), X))
    assert observed["x"].role == "event"
    assert observed["x"].observed
    assert observed.events() == ()
    assert observed.data == ("x",)


def test_exact_priors_are_events_without_a_latent():
    sites = read_model(one_site, (flow(),))
    assert roles(sites) == {"x": "event"}
    assert sites["x"].latent is None
    assert sites["x"].distribution is ngp.FlowPrior
    assert roles(read_model(ngp.latent(one_site, explicit=True), (flow(),)))["x_latent"] == "latent"


def test_events_that_are_not_recorded():
    sites = read_model(ngp.latent(one_site, record=False), (gan(),))
    assert roles(sites) == {"x_latent": "latent"}
    assert sites["x_latent"].event == "x"
    assert sites.events() == ()


def test_plates():
    def model():
        with numpyro.plate("columns", 3), numpyro.plate("rows", 4):
            numpyro.sample("a", dist.Normal(jnp.zeros(2), 1.0).to_event(1))

    sites = read_model(model)
    assert sites["a"].plates == (Plate("rows", -2, 4), Plate("columns", -1, 3))
    assert (sites["a"].shape, sites["a"].batch_ndim, sites["a"].core_ndim) == ((4, 3, 2), 2, 1)
    assert sites["rows"].kind == "plate"
    assert not sites["rows"].has_value
    of_prior = read_model(ngp.latent(rows), (gan(),))
    assert of_prior["x"].plates == (Plate("rows", -1, 4),)
    assert (of_prior["x"].shape, of_prior["x"].batch_ndim, of_prior["x"].core_ndim) == (
        (4, 3),
        1,
        1,
    )


def test_subsampled_plates():
    def model():
        with numpyro.plate("rows", 10, subsample_size=4):
            numpyro.sample("a", dist.Normal(0.0, 1.0))

    sites = read_model(model)
    assert (sites["rows"].full_size, sites["rows"].shape) == (10, (4,))
    assert sites["a"].scaled
    assert sites["a"].plates == (Plate("rows", -1, 4),)


def test_events_of_a_batch_that_is_one_event():
    sites = read_model(ngp.latent(one_site), (gan().expand([5]).to_event(1),))
    assert (sites["x"].batch_ndim, sites["x"].core_ndim) == (0, 1)
    assert (sites["x_latent"].shape, sites["x_latent"].core_ndim) == ((5, 2), 1)


def test_scan():
    def model(y):
        def step(state, y):
            x = numpyro.sample("x", gan())
            state = numpyro.sample("state", dist.Normal(state + x[0], 1.0))
            numpyro.sample("y", dist.Normal(state, 1.0), obs=y)
            return state, None

        numpyro.sample("z", dist.Normal(0.0, 1.0))
        scan(step, 0.0, y)

    sites = read_model(ngp.latent(model), (jnp.zeros(4),))
    assert [name for name, site in sites.items() if site.in_scan] == ["x_latent", "x", "state", "y"]
    assert roles(sites)["x"] == "event"
    assert sites["x"].latent == "x_latent"
    assert (sites["state"].shape, sites["state"].batch_ndim) == ((4,), 1)
    assert (sites["x"].shape, sites["x"].batch_ndim, sites["x"].core_ndim) == ((4, 3), 1, 1)


def masks_and_scales(y, mask):
    with handlers.mask(mask=mask):
        numpyro.sample("masked", dist.Normal(0.0, 1.0).expand([3]), obs=y)
    with handlers.mask(mask=True):
        numpyro.sample("whole", dist.Normal(0.0, 1.0).expand([3]), obs=y)
    with handlers.scale(scale=2.0), numpyro.plate("rows", 6, subsample_size=3):
        numpyro.sample("scaled", dist.Normal(0.0, 1.0), obs=y)
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("partial", dist.Normal(z, 1.0).expand([3]), obs=y, obs_mask=mask)
    numpyro.factor("penalty", -3.0 * z**2)


def test_masks_and_scales():
    sites = read_model(masks_and_scales, (jnp.arange(3.0), jnp.array([True, False, True])))
    assert [n for n, s in sites.items() if s.masked] == [
        "masked",
        "partial_observed",
        "partial_unobserved",
    ]
    assert [n for n, s in sites.items() if s.scaled] == ["scaled"]
    assert roles(sites)["penalty"] == "factor"
    assert not sites["penalty"].has_value
    assert sites.observed == ("masked", "whole", "scaled", "partial_observed", "penalty")
    assert sites.data == sites.observed[:-1]
    assert sites.latents == ("z", "partial_unobserved")
    assert sites["partial"].kind == "deterministic"


def test_log_likelihood_of_a_trace():
    """By hand: masked entries are 0, the sum is scaled, single observations are not."""
    y, mask = np.arange(3.0), np.array([True, False, True])
    trace = trace_of(
        handlers.substitute(masks_and_scales, {"z": jnp.asarray(0.5)}), jnp.asarray(y), mask
    )
    each = stats.norm.logpdf(y)
    points = {
        "masked": each * mask,
        "whole": each,
        "scaled": each,
        "partial_observed": stats.norm.logpdf(y, 0.5) * mask,
        "penalty": -3.0 * 0.25,
    }
    for name, expected in points.items():
        np.testing.assert_allclose(pointwise_log_likelihood(trace[name]), expected, rtol=1e-5)
    sums = {name: np.sum(value) for name, value in points.items()}
    sums["scaled"] *= 2 * 6 / 3
    np.testing.assert_allclose(log_likelihood(trace), sum(sums.values()), rtol=1e-5)
    some = ("masked", "scaled")
    np.testing.assert_allclose(
        log_likelihood(trace, some), sums["masked"] + sums["scaled"], rtol=1e-5
    )


def test_parameters_and_other_kinds():
    def model(prior):
        prior = ngp.param("weights", prior)
        numpyro.param("scale", 1.0)
        numpyro.deterministic("pair", (jnp.zeros(2), 1.0))
        numpyro.sample("count", dist.Poisson(3.0), infer={"event_dims": ["a"]})
        numpyro.sample("x", prior)

    prior = ngp.GANPrior(jax.tree_util.Partial(jnp.matmul, jnp.ones((3, 2))), 2)
    sites = read_model(ngp.latent(model), (prior,))
    assert [sites[name].kind for name in ("weights", "scale", "pair")] == [
        "param",
        "param",
        "deterministic",
    ]
    assert not any(sites[name].has_value for name in ("weights", "scale", "pair"))
    assert sites["count"].discrete
    assert sites["count"].event_dims == ("a",)
    assert sites["count"].distribution is dist.Poisson


def test_improper_latents_and_data_looked_at():
    """No latent is drawn, and the model may look at its data."""

    def model(y):
        numpyro.sample("free", dist.ImproperUniform(dist.constraints.real, (), (2,)))
        seen = np.asarray(y)[~np.isnan(np.asarray(y))]
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=seen)

    sites = read_model(model, (jnp.array([1.0, jnp.nan, 2.0]),))
    assert (sites["free"].shape, sites["y"].shape) == ((2,), (2,))


def test_one_trace_and_a_result_that_is_static():
    calls = []

    def model(prior, y):
        calls.append(1)
        return decorated.fn(prior, y)

    model = ngp.latent(model)
    first = read_model(model, (vae(), X))
    assert len(calls) == 1
    second = read_model(model, (vae(), X + 1))
    assert first == second
    assert hash(first) == hash(second)
    assert first != read_model(model, (gan(), X))
    with pytest.raises(dataclasses.FrozenInstanceError):
        first["x"].role = "other"


def test_a_trace_that_is_already_there():
    trace = trace_of(decorated, gan(), X)
    assert read_trace(trace) == read_model(decorated, (gan(), X))
