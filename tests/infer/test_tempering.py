"""Parallel tempering against closed forms and quadrature: draws, mode weights, evidence."""

import copy
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC
from scipy import stats

import numpyro_genprior as ngp
from numpyro_genprior.infer import ParallelTempering, Posterior
from numpyro_genprior.infer.tempering import TemperingReport
from numpyro_genprior.infer.tempering.accumulators import (
    add_stepping_stones,
    empty_accumulators,
    log_evidence,
)
from numpyro_genprior.infer.tempering.schedule import equalise, initial_schedule

W = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]], np.float32)
Y = np.array([1.3, -0.4, 0.8], np.float32)
SD = 0.4


@ngp.latent(record=False)
def linear(prior, y, sd):
    x = numpyro.sample("x", prior)
    shift = numpyro.sample("shift", dist.LogNormal(-1.0, 0.001))  # almost constant: exp(-1)
    numpyro.deterministic("first", x[0])
    numpyro.sample("y", dist.Normal(x + shift, sd).to_event(1), obs=y)


def prior(scale=1.0):
    weights = jnp.asarray(scale * W)
    return ngp.GANPrior(functools.partial(jnp.matmul, weights), 2)


def closed_form(y, scale=1.0):
    """Mean and covariance of the latent, and log evidence."""
    forward, residual = scale * W.astype(float), y.astype(float) - np.exp(-1.0)
    covariance = np.linalg.inv(np.eye(2) + forward.T @ forward / SD**2)
    mean = covariance @ forward.T @ residual / SD**2
    marginal = stats.multivariate_normal(np.zeros(3), forward @ forward.T + SD**2 * np.eye(3))
    return mean, covariance, marginal.logpdf(residual)


def make(model=linear, *, replicas=6, warmup=300, samples=1000, chains=2, **kwargs):
    kwargs = {"chain_method": "vectorized", "jit_model_args": True, **kwargs}
    return MCMC(
        ParallelTempering(model, replicas),
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        progress_bar=False,
        **kwargs,
    )


def assert_mean(draws, expected):
    """The mean of draws ``(chains, draws, ...)`` is within five Monte Carlo standard errors."""
    draws = np.asarray(draws, float)
    error = draws.std((0, 1)) / np.sqrt(effective_sample_size(draws))
    np.testing.assert_array_less(np.abs(draws.mean((0, 1)) - expected), 5 * error)


def assert_linear(mcmc, y, scale=1.0):
    samples = mcmc.get_samples(group_by_chain=True)
    mean, covariance, evidence = closed_form(y, scale)
    z = np.asarray(samples["x_latent"], float)
    assert_mean(z, mean)
    assert_mean((z - mean)[..., :, None] * (z - mean)[..., None, :], covariance)
    np.testing.assert_allclose(samples["first"], z @ (scale * W[0]), rtol=1e-4, atol=1e-5)
    error = ParallelTempering.log_evidence_error(mcmc)
    assert error < 0.2
    assert abs(ParallelTempering.log_evidence(mcmc) - evidence) < 5 * error


@functools.cache
def vectorized():
    mcmc = make()
    mcmc.run(jax.random.key(0), prior(), jnp.asarray(Y), SD)
    return mcmc


# ---- the posterior -------------------------------------------------------------------------------


def test_linear_gaussian():
    mcmc = vectorized()
    assert_linear(mcmc, Y)
    assert set(mcmc.get_samples()) == {"x_latent", "shift", "first"}
    energy = mcmc.get_extra_fields(group_by_chain=True)["potential_energy"]
    posterior = Posterior(linear, (prior(), jnp.asarray(Y), SD))
    last = jax.tree.map(lambda x: x[1, -1], mcmc.get_samples(group_by_chain=True))
    at = posterior.coordinates(last)
    np.testing.assert_allclose(energy[1, -1], posterior.energy(at), rtol=1e-4)
    found = ngp.to_arviz(mcmc)["sample_stats"]
    np.testing.assert_array_equal(found["lp"], -energy)


@pytest.mark.slow
def test_second_run_with_other_data_and_weights():
    """It matches the closed form, and the numbers of a fresh run with sequential chains."""
    mcmc, other = copy.copy(vectorized()), jnp.asarray(-Y)
    mcmc.run(jax.random.key(1), prior(0.5), other, SD)
    assert_linear(mcmc, -Y, 0.5)
    fresh = make(chain_method="sequential", samples=50)
    fresh.run(jax.random.key(1), prior(0.5), other, SD)
    np.testing.assert_allclose(
        fresh.get_samples(group_by_chain=True)["x_latent"][:, :20],
        mcmc.get_samples(group_by_chain=True)["x_latent"][:, :20],
        atol=1e-2,  # rounding errors depend on the chain method, and grow
    )


@pytest.mark.slow
def test_constants_raw_keys_and_continuation():
    """Constant arguments, uint32 keys, one chain, initial values, a continued run."""
    mcmc = make(chains=1, jit_model_args=False, samples=600)
    start = {"x_latent": jnp.zeros(2), "shift": jnp.exp(-1.0)}
    mcmc.run(jax.random.PRNGKey(0), prior(), Y, SD, init_params=start)
    betas = ParallelTempering.report(mcmc).betas
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, prior(), Y, SD)
    report = ParallelTempering.report(mcmc)
    assert report.num_iterations == 1200
    np.testing.assert_array_equal(report.betas, betas)
    assert_linear(mcmc, Y)


def test_pure_core_under_vmap_over_data():
    """All sizes are fixed, so that a simulation study is one vmap."""
    kernel = ParallelTempering(linear, 4, num_steps=2)

    @functools.partial(jax.vmap, in_axes=(0, 0))
    def draw(key, y):
        posterior = Posterior(linear, (prior(), y, SD))
        state = kernel.init_state(posterior, key, 100)

        def body(state, _):
            state = kernel.step(posterior, state)
            return state, state.z["x_latent"]

        return jax.lax.scan(body, state, length=500)[1][100:]

    draws = jax.jit(draw)(jax.random.split(jax.random.key(0), 2), jnp.stack([Y, -Y]))
    for one, y in zip(draws, (Y, -Y), strict=True):
        assert_mean(one[None], closed_form(y)[0])


# ---- modes ---------------------------------------------------------------------------------------


def two_modes(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z**2 + 0.2 * z, 0.05), obs=y)


def test_weights_of_two_modes_by_quadrature():
    mcmc = make(two_modes, replicas=8, warmup=400, samples=1500)
    mcmc.run(jax.random.key(0), 1.0)
    grid = np.linspace(-3, 3, 200_001)
    density = stats.norm.pdf(grid) * stats.norm.pdf(1.0, grid**2 + 0.2 * grid, 0.05)
    evidence = np.trapezoid(density, grid)
    share = np.trapezoid(density * (grid > 0), grid) / evidence
    z = np.asarray(mcmc.get_samples(group_by_chain=True)["z"])
    assert_mean(z > 0, share)
    assert_mean(z, np.trapezoid(density * grid, grid) / evidence)
    report = ParallelTempering.report(mcmc)
    assert abs(report.log_evidence - np.log(evidence)) < 5 * report.log_evidence_error
    assert report.round_trips.min() > 50
    assert report.swap_rates.min() > 0.4
    assert np.ptp(report.swap_rates, axis=1).max() < 0.25  # the schedule has equalised them
    assert not report.warnings
    assert "Round trips" in str(report)


@pytest.mark.slow
def test_crescents_beside_a_region_of_nan():
    """Two moons (Lueckmann et al. 2021), where half of each ring is NaN, against quadrature.

    NaN is rejected, as a likelihood of zero would be, and reported.
    """

    def moons(y):
        z = numpyro.sample("z", dist.Uniform(-1.0, 1.0).expand([2]).to_event(1))
        mean = jnp.stack([-jnp.abs(z[0] + z[1]), -z[0] + z[1]]) / jnp.sqrt(2.0)
        place = y - mean - jnp.array([0.25, 0.0])
        radius = jnp.linalg.norm(place)
        numpyro.factor("ring", dist.Normal(0.1, 0.01).log_prob(radius) - jnp.log(radius))
        numpyro.factor("half", 0 * jnp.log(place[0]))

    mcmc = make(moons, replicas=8, warmup=400, samples=1500)
    mcmc.run(jax.random.key(0), jnp.zeros(2), extra_fields=("accept_prob",))
    axis = np.linspace(-1, 1, 1501)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    place = np.abs(a + b) / np.sqrt(2) - 0.25
    radius = np.hypot(place, (b - a) / np.sqrt(2))
    weight = np.where(place > 0, stats.norm.pdf(radius, 0.1, 0.01) / radius, 0)
    weight /= weight.sum()
    z = np.asarray(mcmc.get_samples(group_by_chain=True)["z"])
    assert (np.abs(z.sum(-1)) / np.sqrt(2) > 0.25 - 1e-5).all()
    assert_mean(z.sum(-1) > 0, 0.5)
    for f in (lambda a, b: np.abs(a + b), lambda a, b: (a - b) ** 2):
        assert_mean(f(z[..., 0], z[..., 1]), np.sum(weight * f(a, b)))
    report = ParallelTempering.report(mcmc)
    assert report.nonfinite.min() > 100
    assert "NaN or infinite" in str(report)


# ---- parts ---------------------------------------------------------------------------------------


def test_schedule_of_equal_rejection():
    """If the barrier Λ is known, the new β divide it into equal parts."""
    betas = jnp.asarray([0.0, 0.01, 0.1, 0.5, 1.0])

    def barrier(beta):
        return np.log1p(
            np.asarray(beta) / 0.01
        )  # linear in the scale that equalise interpolates in

    rejections = jnp.asarray(0.2 * np.diff(barrier(betas)), jnp.float32)
    new = equalise(betas, rejections)
    np.testing.assert_allclose(np.diff(barrier(new)), barrier(1.0) / 4, rtol=1e-4)
    np.testing.assert_array_equal(new[jnp.array([0, -1])], [0.0, 1.0])
    first = initial_schedule(jnp.array([-jnp.inf, jnp.nan, -3e4, -1e4]), 8)
    assert (np.diff(first) > 0).all()
    assert first[0] == 0
    assert first[-1] == 1
    np.testing.assert_array_equal(initial_schedule(jnp.zeros(2), 2), [0.0, 1.0])


def test_evidence_of_independent_weights():
    """The log of a mean of log-normal weights, with its error by the delta method."""
    log_weights = np.random.default_rng(0).normal(size=(1000, 1)).astype(np.float32)
    sums, _ = jax.lax.scan(
        lambda t, w: (add_stepping_stones(t, w), None),
        empty_accumulators(2, jnp.float32),
        jnp.asarray(log_weights),
    )
    value, error = log_evidence(sums)
    weights = np.exp(log_weights.astype(float))
    np.testing.assert_allclose(value, np.log(weights.mean()), rtol=1e-5)
    np.testing.assert_allclose(error, np.std(weights) / np.mean(weights) / 1000**0.5, rtol=0.5)


def test_evidence_warns_of_few_round_trips():
    state = vectorized().last_state
    few = state._replace(accumulators=state.accumulators._replace(round_trips=jnp.array([30, 2])))
    mcmc = types.SimpleNamespace(last_state=few)
    with pytest.warns(UserWarning, match="log evidence .* 2 round trips.* Run longer") as caught:
        assert np.isfinite(ParallelTempering.log_evidence(mcmc))
    assert caught[0].filename == __file__


def test_report_in_words_and_as_a_dataset():
    pairs = np.full((1, 3), 0.2)
    report = TemperingReport(
        num_iterations=100,
        betas=np.linspace(0, 1, 4)[None],
        swap_rates=pairs,
        acceptance=2 * pairs,
        step_sizes=pairs,
        barriers=np.array([2.4]),
        restarts=np.array([3]),
        round_trips=np.array([2]),
        log_evidences=np.array([-1.25]),
        log_evidence_errors=np.array([0.5]),
        nonfinite=np.array([0]),
    )
    few, short, local = report.warnings
    assert "num_replicas=6" in few
    assert "2 round trips" in short
    assert "0.40" in local
    assert report.ideal_round_trips == pytest.approx(100 / (2 + 2 * 3 * 0.8 / 0.2))
    assert "-1.25 ± 0.50" in str(report)
    assert "-1.25 ± 0.50" in repr(report)
    assert len(repr(report)) < 100
    found = report.to_dataset()
    assert dict(found.sizes) == {"chain": 1, "replica": 4, "pair": 3}
    np.testing.assert_array_equal(found["swap_rate"], pairs)
    assert found.attrs["num_iterations"] == 100


def dirichlet(y):
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("y", dist.Normal(p[0], 1.0), obs=y)


@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: make(dirichlet).run(jax.random.key(0), 1.0), "'p'.*use FisherNUTS"),
        (lambda: ParallelTempering(linear, 1), "pass a larger num_replicas"),
        (lambda: ParallelTempering(linear, num_steps=0), "pass a larger num_steps"),
        (lambda: ParallelTempering.report(make()), "call mcmc.run"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=f"(?is){match}"):
        attempt()


def test_diagnostics_for_the_progress_bar():
    state = jax.tree.map(lambda x: x[0], vectorized().last_state)
    assert "round trips" in ParallelTempering(linear).get_diagnostics_str(state)
