"""Rates of contraction: theory, its closed form for finite series, and what `contraction` finds.

Y_i = κ_i θ_i + n^(-1/2) ε_i with κ_i = i^-p and prior θ_i ~ N(0, i^(-1-2α)): the posterior of a
truth of smoothness β contracts as n^(-min(α, β) / (1 + 2α + 2p)), when β is at most 1 + 2α + 2p
(Knapik, van der Vaart, van Zanten, Annals of Statistics 2011, theorem 4.1). In the noise n^(-1/2)
the exponent is twice that.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics import contraction
from numpyro_genprior.diagnostics.calibration.power_law import fit_rate
from numpyro_genprior.infer import SVIMethod

SIZE, P = 32, 0.5
NOISES = [0.3, 0.1, 0.03, 0.01]
SHORT = {"num_replications": 192, "progress_bar": False}


def closed_form_moments(alpha, p, truth, noises):
    """Expected square of the error of the posterior mean, and its variance, summed."""
    i = np.arange(1, len(truth) + 1.0)
    found = []
    for noise in noises:
        information = i ** (-2 * p) / noise**2
        variance = 1 / (i ** (1 + 2 * alpha) + information)
        bias = variance * i ** (1 + 2 * alpha) * truth
        found.append([np.sum(bias**2 + variance**2 * information), np.sum(variance)])
    return np.array(found).T


def smooth(beta, size):
    return np.arange(1, size + 1.0) ** (-0.5 - beta)


def closed_form(guide):
    return SVIMethod(guide, num_steps=1, num_samples=127)


class Exact:
    """The posterior of `series` in closed form."""

    def __init__(self, model):
        self.model = model

    def __call__(self, data, args, kwargs):
        loc = numpyro.param("loc", jnp.zeros(SIZE))
        numpyro.sample("x_latent", dist.Normal(loc, 1.0).to_event(1))

    def sample_posterior(self, key, params, data, args, kwargs, *, sample_shape=()):
        i = jnp.arange(1, SIZE + 1.0)
        design = i**-P * i ** (-0.5 - args[0]) / kwargs["noise"]
        variance = 1 / (1 + design**2)
        mean = variance * design * data["y"] / kwargs["noise"]
        noise = jax.random.normal(key, (*sample_shape, SIZE))
        with jax.numpy_rank_promotion("allow"):
            return {"x_latent": mean + jnp.sqrt(variance) * noise}


@ngp.latent
def series(alpha, y, *, noise):
    i = jnp.arange(1, SIZE + 1.0)
    x = numpyro.sample("x", ngp.GANPrior(lambda z: i ** (-0.5 - alpha) * z, SIZE))
    numpyro.sample("y", dist.Normal(i**-P * x, noise).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("alpha", "beta", "p"), [(1.0, 0.6, 0.5), (1.0, 2.0, 0.5), (0.5, 1.0, 1.0), (2.0, 1.0, 0.0)]
)
def test_the_closed_form_has_the_rate_of_theory(alpha, beta, p):
    noises = np.sqrt(10.0 ** -np.arange(7, 13))
    square = closed_form_moments(alpha, p, smooth(beta, 1_000_000), noises).sum(0)
    slope = np.polyfit(np.log(noises), 0.5 * np.log(square), 1)[0]
    assert abs(slope - 2 * min(alpha, beta) / (1 + 2 * alpha + 2 * p)) < 0.01


@pytest.mark.parametrize("beta", [2.0, 0.5])
def test_error_and_spread_are_those_of_the_closed_form(key, beta):
    truth = smooth(beta, SIZE)
    args = (jnp.array(1.0), jnp.zeros(SIZE))
    found = contraction(
        series,
        key,
        *args,
        schedule={"noise": NOISES},
        truth={"x": truth},
        method=closed_form(Exact),
        **SHORT,
    )
    square, variance = closed_form_moments(1.0, P, truth, NOISES) / SIZE
    for curve, expected in ((found.error, square), (found.spread, variance)):
        standard_error = (curve**2).std(1, ddof=1) / np.sqrt(curve.shape[1])
        assert np.all(np.abs((curve**2).mean(1) - expected) < 4 * standard_error)
    np.testing.assert_allclose(found.radius**2, found.error**2 + found.spread**2)
    expected = np.polyfit(np.log(NOISES), 0.5 * np.log(square + variance), 1)[0]
    assert (
        abs(found.rates["radius"].exponent - expected) < 0.03
    )  # of a curve that is a bit exponent_changes
    if beta >= 1.0:
        assert abs(found.rates["spread"].exponent - 2 / (1 + 2 + 2 * P)) < 0.03
        assert "overconfident" not in str(found)
        assert found.verdict == "contracts"
    else:
        assert "the posterior is overconfident about these truths" in str(found)
        assert found.verdict == "overconfident"
    assert found.warnings == ()
    assert repr(found).startswith("Contraction(verdict=")
    data = found.to_dataset()
    assert dict(data.sizes) == {"noise": 4, "replication": 192}
    np.testing.assert_allclose(data.radius, found.radius)


def test_a_rougher_prior_is_slower_for_a_smooth_truth(key):
    results = [
        contraction(
            series, key, jnp.array(alpha), jnp.zeros(SIZE),
            schedule={"noise": NOISES}, truth={"x": smooth(3.0, SIZE)}, method=closed_form(Exact),
            **SHORT,
        )
        for alpha in (0.5, 1.5)
    ]  # fmt: skip
    compared = results[0].compare(results[1])
    assert compared.verdict == "slower"
    assert "The first contracts slower" in str(compared)
    assert len(repr(compared)) < 100
    exponents = [result.rates["radius"].exponent for result in results]
    np.testing.assert_allclose(compared.to_dataset().exponent, exponents)
    assert abs(compared.difference - (1 / 3 - 3 / 5)) < 0.1  # the schedule is short


def test_measurements_that_grow(key):
    """The mean of n numbers, of which no data are passed: exponent -1/2."""

    def mean(*, n):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0).expand([n]).to_event(1))

    class Mean:
        def __init__(self, model):
            self.model = model

        def __call__(self, data, args, kwargs):
            numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1.0))

        def sample_posterior(self, key, params, data, args, kwargs, *, sample_shape=()):
            precision = 1 + kwargs["n"]
            centre = data["y"].sum() / precision
            return {"x": centre + jax.random.normal(key, sample_shape) / precision**0.5}

    schedule = {"n": [100, 1000]}
    found = contraction(
        mean, key, schedule=schedule, observed="y", method=closed_form(Mean), **SHORT
    )
    assert abs(found.rates["spread"].exponent + 0.5) < 0.03
    assert found.rates["spread"].speed == -found.rates["spread"].exponent
    assert "n^(-0." in str(found)


def test_weighted_slopes_are_those_of_a_power_law(rng):
    values = np.array([1.0, 0.3, 0.1])
    scatter = np.exp(np.array([[0.5], [0.02], [0.02]]) * rng.normal(size=(3, 400)))
    rate = fit_rate(values, values[:, None] ** 0.7 * scatter)
    assert abs(rate.exponent - 0.7) < 4 * rate.error
    # All of what is known comes from the last two steps.
    assert rate.error < 1.3 * np.sqrt(2) * 0.02 / np.log(3) / 20
    assert not rate.exponent_changes
    assert fit_rate(values, np.exp(values[:, None] * 2) * np.ones((3, 9))).exponent_changes


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"schedule": [0.3, 0.1]}, "Pass schedule="),
        ({"schedule": {"noise": [0.3, 0.1, 0.2]}}, "Pass schedule="),
        ({"schedule": {"noise": [0.3]}}, "Pass schedule="),
        ({"truth": {"x": jnp.zeros(3)}}, "Pass values of recorded sites"),
        ({"truth": {"w": jnp.zeros(3)}}, "Pass values of recorded sites"),
    ],
)
def test_errors_say_what_to_do(key, options, match):
    settings = {"schedule": {"noise": NOISES}, **SHORT, **options}
    with pytest.raises(ValueError, match=match):
        contraction(series, key, jnp.array(1.0), jnp.zeros(SIZE), **settings)
