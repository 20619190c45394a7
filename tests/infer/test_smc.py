"""SMC against closed forms and quadrature: draws, mode weights, the evidence and its error."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import numpyro_genprior as ngp
from numpyro_genprior.infer.smc import SMC
from numpyro_genprior.infer.smc.result import evidence_error

# ---- a linear generator with Gaussian noise, in closed form --------------------------------------

W = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])
B = np.array([0.5, -0.5, 1.0])
A = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
SIGMA = 0.2
SEEDS = range(8)


@ngp.latent
def linear(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, SIGMA).to_event(1), obs=y)


def prior():
    weights, offset = jnp.asarray(W), jnp.asarray(B)
    return ngp.GANPrior(lambda z: weights @ z + offset, 2)


def closed_form(y):
    forward = A @ W / SIGMA
    covariance = np.linalg.inv(np.eye(2) + forward.T @ forward)
    marginal = stats.multivariate_normal(A @ B, A @ W @ W.T @ A.T + SIGMA**2 * np.eye(2))
    return covariance @ forward.T @ (y - A @ B) / SIGMA, covariance, marginal.logpdf(y)


def test_linear_gaussian():
    """Several seeds and two data sets: z-scores of means, variances and the evidence."""
    smc = SMC(linear, 512, progress_bar=False)
    evidence = []
    for y in ([1.3, -0.4], [-2.0, 1.0]):
        mean, covariance, exact = closed_form(np.array(y))
        draws = []
        for seed in SEEDS:
            result = smc.run(jax.random.key(seed), prior(), y=jnp.asarray(y))
            evidence.append((result.log_evidence - exact) / result.log_evidence_error)
            assert result.warnings == ()
            assert result.temperatures[0] == 0
            assert result.temperatures[-1] == 1
            assert (np.diff(result.temperatures) > 0).all()
            assert len(result.temperatures) == len(result.acceptance) + 1
            draws.append(result.get_samples())
        # The spread of averages of independent runs is the Monte Carlo error.
        z = np.stack([draw["x_latent"] for draw in draws])
        np.testing.assert_allclose(draws[0]["x"], z[0] @ W.T + B, rtol=1e-4, atol=1e-4)
        for averages, expected in (
            (z.mean(1), mean),
            (((z - mean) ** 2).mean(1), np.diag(covariance)),
        ):
            error = averages.std(0, ddof=1) / np.sqrt(len(averages))
            np.testing.assert_array_less(np.abs(averages.mean(0) - expected), 5 * error)
            # The variance of one run is at most 6 times that of independent draws.
            spread = np.diag(covariance) / 512
            if expected is mean:
                assert (averages.var(0, ddof=1) < 6 * spread).all()
    evidence = np.array(evidence)
    assert np.abs(evidence).max() < 4
    # sum of squares of 16 standard normals: 0.3 % and 99.7 % quantiles
    assert 0.3 < np.mean(evidence**2) < 2.4


def test_doubtful_result_warns_once():
    """One step to data far from the prior: few ancestors, a large error, too few temperatures."""
    smc = SMC(linear, 512, max_stages=1, progress_bar=False)
    with pytest.warns(RuntimeWarning, match="raise max_stages") as record:
        result = smc.run(jax.random.key(0), prior(), y=jnp.array([10.0, 10.0]))
    assert len(record) == 1
    text = " ".join(result.warnings)
    assert text in str(record[0].message)
    assert all(f"Warning: {warning}" in str(result) for warning in result.warnings)
    assert "descend from" in text
    assert "raise num_particles" in text
    assert result.num_ancestors < 10
    assert result.log_evidence_error > 0.5


def test_evidence_error_of_importance_sampling(rng):
    """With one stage, it is that of the mean weight by the sample variance."""
    weights = rng.gamma(2.0, size=100)
    weights /= weights.mean()
    variance = weights.var(ddof=1) / 100
    found = evidence_error(100, 1, np.sum(weights**2) / 100**2)
    assert found == pytest.approx(np.sqrt(np.log1p(variance)), rel=1e-10)


# ---- two modes -----------------------------------------------------------------------------------


def two_modes(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z**2 + 0.3 * z, 0.1), obs=y)


def test_two_modes_keep_their_weights():
    grid = np.linspace(-6, 6, 200_001)
    density = stats.norm.pdf(grid) * stats.norm.pdf(1.0, grid**2 + 0.3 * grid, 0.1)
    evidence = np.trapezoid(density, grid)
    share = np.trapezoid(density * (grid > 0), grid) / evidence
    smc = SMC(two_modes, 512, progress_bar=False)
    results = [smc.run(jax.random.key(seed), jnp.array(1.0)) for seed in SEEDS]
    shares = np.array([(result.get_samples()["z"] > 0).mean() for result in results])
    assert abs(shares.mean() - share) < 5 * shares.std(ddof=1) / np.sqrt(len(shares))
    assert shares.std(ddof=1) < 4 * np.sqrt(share * (1 - share) / 512)
    z = [(r.log_evidence - np.log(evidence)) / r.log_evidence_error for r in results]
    assert np.abs(z).max() < 4
    assert all(result.warnings == () for result in results)


# ---- other sites, random walk, batches -----------------------------------------------------------


@ngp.latent(record=False)
def mixed(prior, y, v):
    """A scale, a prior, and a distribution without standard normal coordinates."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    x = numpyro.sample("x", prior)
    numpyro.deterministic("top", x.max())
    numpyro.sample("y", dist.Normal(x, scale).to_event(1), obs=y)
    width = numpyro.sample("width", dist.Weibull(1.0, 2.0))
    numpyro.sample("v", dist.Normal(width, 0.3), obs=v)


def test_scale_and_unconstrained_sites_by_random_walk():
    y, v, slope = np.array([0.4, 1.1, 1.2]), 0.2, np.array([0.5, 1.0, 1.5])
    scale, z = np.linspace(1e-3, 6, 1200)[:, None], np.linspace(-6, 6, 1200)[None, :]
    density = stats.halfnorm.pdf(scale) * stats.norm.pdf(z)
    for weight, value in zip(slope, y, strict=True):
        density = density * stats.norm.pdf(value, weight * z, scale)
    width = np.linspace(0, 6, 4001)
    other = stats.weibull_min.pdf(width, 2.0) * stats.norm.pdf(v, width, 0.3)
    cell = (scale[1, 0] - scale[0, 0]) * (z[0, 1] - z[0, 0])
    total, rest = density.sum() * cell, np.trapezoid(other, width)
    means = {
        "scale": (density * scale).sum() * cell / total,
        "width": np.trapezoid(other * width, width) / rest,
        "x_latent": (density * z).sum() * cell / total,
    }

    gan = ngp.GANPrior(lambda z: jnp.asarray(slope) * z, 1)
    smc = SMC(mixed, 256, moves="rwm", batch_size=128, progress_bar=False)
    results = [smc.run(jax.random.key(s), gan, jnp.asarray(y), v=jnp.array(v)) for s in SEEDS]
    z = [(r.log_evidence - np.log(total * rest)) / r.log_evidence_error for r in results]
    assert np.abs(z).max() < 4
    draws = [result.get_samples() for result in results]
    assert set(draws[0]) == {"scale", "x_latent", "top", "width"}  # no event: record=False
    assert draws[0]["top"].shape == (256,)
    found = results[0].to_dataset()
    assert found["x_latent"].dims == ("chain", "draw", "x_latent_dim_0")
    np.testing.assert_array_equal(found["x_latent"][0], draws[0]["x_latent"])
    np.testing.assert_array_equal(found["stage_temperature"], results[0].temperatures[1:])
    assert found.attrs["log_evidence"] == results[0].log_evidence
    assert len(repr(results[0])) < 100
    assert "256 draws" in str(results[0])
    for name, expected in means.items():
        averages = np.array([draw[name].mean() for draw in draws])
        error = averages.std(ddof=1) / np.sqrt(len(averages))
        assert abs(averages.mean() - expected) < 5 * error, name


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"moves": "nuts"}, "Use 'hmc'"),
        ({"num_particles": 1}, "num_particles is too small"),
        ({"batch_size": 0}, "batch_size is too small"),
        ({"target_ess": 1.0}, "target_ess is out of range"),
        ({"correlation": 0.0}, "correlation is out of range"),
    ],
)
def test_refused_settings(settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        SMC(two_modes, **settings)


def test_refused_models():
    def improper(y):
        loc = numpyro.sample("loc", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    def impossible(y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    with pytest.raises(ValueError, match="Give it a proper prior") as error:
        SMC(improper, 8, progress_bar=False).run(jax.random.key(0), jnp.array(1.0))
    assert "'loc'" in str(error.value)
    with pytest.raises(ValueError, match="Check the shapes and units"):
        SMC(impossible, 8, progress_bar=False).run(jax.random.key(0), jnp.array(jnp.nan))


def test_missing_blackjax(monkeypatch):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(ImportError, match=r"pip install 'numpyro-genprior\[blackjax\]'"):
        SMC(two_modes)
