"""Names of dimensions and coordinates in the result of `to_arviz`."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from trace_model import Y, generator, infer

import numpyro_genprior as ngp


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


def test_names_by_site(mcmc):
    trace = ngp.to_arviz(mcmc, event_dims={"x": ("depth", "time"), "y": "time", "x_latent": "mode"})
    assert trace["posterior"]["x"].dims[-2:] == ("depth", "time")
    assert trace["posterior"]["x_latent"].dims[-1] == "mode"
    assert trace["observed_data"]["y"].dims == ("epoch", "time")


def test_an_exact_prior_without_decorator_and_two_sizes_of_events():
    def plain(first, second, y=None):
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
    trace = ngp.to_arviz(infer(plain, first, second, jnp.zeros(3), chains=1))
    assert trace["posterior"]["a"].dims == ("chain", "draw", "row", "col")
    assert trace["posterior"]["b"].dims == ("chain", "draw", "station")
    assert trace["posterior"]["c"].dims == ("chain", "draw", "c_dim_0", "row", "col")
    # named like an event and its latent, but there is no prior
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
