"""Coverage of events that the prior does not have: a linear Gaussian model, where it is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics import coverage
from numpyro_genprior.diagnostics.calibration.experiment import prepare
from numpyro_genprior.infer import SVIMethod

LEVELS = (0.5, 0.9)
NOISE = 0.7


class Exact:
    """The posterior of `model` in closed form; the prior's scale is an argument."""

    def __init__(self, model):
        self.model = model

    def __call__(self, data, args, kwargs):
        loc = numpyro.param("loc", jnp.zeros(8))
        numpyro.sample("x_latent", dist.Normal(loc, 1.0).to_event(1))

    def sample_posterior(self, key, params, data, args, kwargs, *, sample_shape=()):
        scale = args[0]
        variance = 1 / (1 + scale**2 / NOISE**2)
        mean = variance * scale * data["y"].reshape(8) / NOISE**2
        noise = jax.random.normal(key, (*sample_shape, 8))
        with jax.numpy_rank_promotion("allow"):
            return {"x_latent": mean + jnp.sqrt(variance) * noise}


@ngp.latent
def model(scale, y):
    x = numpyro.sample("x", ngp.GANPrior(lambda z: scale * z.reshape(2, 4), 8))
    numpyro.sample("y", dist.Normal(x, NOISE).to_event(2), obs=y)


def closed_form(guide):
    return SVIMethod(guide, num_steps=1)


def run(scale, **options):
    events = jax.random.normal(jax.random.key(3), (96, 2, 4))
    settings = {"method": closed_form(Exact), "levels": LEVELS, "progress_bar": False}
    args = (jnp.array(scale), jnp.zeros((2, 4)))
    return coverage(model, jax.random.key(4), *args, events=events, **{**settings, **options})


def expected(scale):
    """Events are standard normal, the model believes in ``scale``."""
    gain = scale**2 / (scale**2 + NOISE**2)
    error = np.sqrt((1 - gain) ** 2 + gain**2 * NOISE**2)
    quantile = stats.norm.ppf(0.5 + np.array(LEVELS) / 2)
    return 2 * stats.norm.cdf(quantile * np.sqrt(gain) * NOISE / error) - 1


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "covers"), (0.3, "too_narrow")])
def test_coverage_is_that_of_theory(scale, verdict):
    found = run(scale)
    assert found.verdict == verdict
    assert found.num_events == 96
    assert found.entries["x"].shape == (2, 2, 4)
    assert np.all(np.abs(found.coverage["x"] - expected(scale)) < 4 * found.error["x"])
    binomial = np.sqrt(found.coverage["x"] * (1 - found.coverage["x"]) / (96 * 8))
    assert np.all(np.abs(found.error["x"] / binomial - 1) < 0.4)  # entries are independent here
    assert "96 events" in str(found)
    assert ("misses too often" in str(found)) == (verdict == "too_narrow")
    assert repr(found).startswith(f"Coverage(verdict={verdict!r}, quantities=3")
    assert found.warnings == ()
    data = found.to_dataset()
    assert data.x_entries.dims == ("level", "x_dim_0", "x_dim_1")
    np.testing.assert_allclose(data.coverage.sel(quantity="x"), found.coverage["x"])


def test_entries_of_one_event_count_as_one():
    """Copies of one number: the error is that of 96 events and not of 384 entries."""
    found = run(1.0, functionals={"copies": lambda sites: jnp.tile(sites["x"][0, 0], 4)})
    share = found.coverage["copies"]
    np.testing.assert_allclose(found.error["copies"], np.sqrt(share * (1 - share) / 96), rtol=0.05)


def test_intervals_that_are_too_wide_are_called_so():
    class Wide(Exact):
        def sample_posterior(self, *args, **kwargs):
            draws = super().sample_posterior(*args, **kwargs)["x_latent"]
            centre = draws.mean(0, keepdims=True)
            with jax.numpy_rank_promotion("allow"):
                return {"x_latent": centre + 3 * (draws - centre)}

    found = run(1.0, method=closed_form(Wide), functionals={"x": lambda sites: sites["x"]})
    assert found.verdict == "too_wide"
    assert np.all(found.coverage["x"] > LEVELS)


def test_an_exact_prior_and_a_vae_take_events(key):
    """Sites that are sampled themselves, and those with decoder noise of their own."""
    gaussian = ngp.GaussianPrior(jnp.zeros(4), factor=jnp.eye(4), diagonal=jnp.full(4, 1e-2))
    vae = ngp.VAEPrior(lambda z: z, 4, scale=0.1)
    for prior in (gaussian, vae):

        @ngp.latent
        def seen(prior, y):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(x, 1e-3).to_event(1), obs=y)

        events = jnp.arange(80.0).reshape(20, 4)
        experiment = prepare(
            "coverage", seen, (prior, jnp.zeros(4)), {}, None, 20, closed_form(Exact)
        )
        drawn = experiment.simulate(key, 20, given={"x": events})
        np.testing.assert_allclose(drawn["x"], events)
        np.testing.assert_allclose(drawn["y"], events, atol=1e-2)
        assert not {"x_latent", "x_noise"} & set(drawn)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"events": jnp.zeros((20, 8))}, "Stack events along the first dimension"),
        ({"events": jnp.zeros((4, 2, 4))}, "Use 100 or more"),
        ({"site": "w"}, "Name a recorded event"),
        ({"levels": (0.5, 95.0)}, "Leave levels"),
        ({"functionals": {"z": lambda s: s["x_latent"]}}, "record=True"),
    ],
)
def test_errors_say_what_to_do(options, match):
    settings = {"events": jnp.zeros((20, 2, 4)), "progress_bar": False, **options}
    with pytest.raises(ValueError, match=match):
        coverage(model, jax.random.key(0), jnp.array(1.0), jnp.zeros((2, 4)), **settings)
