"""`adequacy` on data of a known kind."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from tiers import tiered

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics.posterior.pearson import pearson, unmasked
from numpyro_genprior.operators import Blur, Dense, Identity, MarginalNormal, Mask

SHAPE = (8, 8)
DIGITS = ngp.pretrained.load("digits_vae")
MATRIX = np.random.default_rng(1).normal(size=(40, 64)) / 8
OPERATORS = {
    "identity": lambda: Identity(SHAPE),
    "mask": lambda: Mask(np.random.default_rng(2).random(SHAPE) < 0.6),
    "blur": lambda: Blur(SHAPE, 0.7),
    "dense": lambda: Dense(MATRIX, SHAPE),
}


@ngp.latent(noise="omit")
def digits(prior, operator, noise, y):
    x = numpyro.sample("x", prior)
    likelihood = dist.Normal(operator(x), noise).to_event(len(operator.data_shape))
    numpyro.sample("y", likelihood, obs=y)


def decoded(seed):
    return np.asarray(
        DIGITS.decode(jax.random.normal(jax.random.key(seed), DIGITS.latent.event_shape))
    )


def real(number):
    """Held-out digits of scikit-learn, see examples/train_pretrained.py."""
    datasets = pytest.importorskip("sklearn.datasets")
    images = datasets.load_digits().images / 16
    return images[np.random.default_rng(0).permutation(len(images))[1500 : 1500 + number]]


def found(name, event, noise, actual=None, seed=0, **options):
    operator = OPERATORS[name]()
    error = np.random.default_rng(seed).normal(size=operator.data_shape)
    y = np.asarray(operator(event)) + (noise if actual is None else actual) * error
    return ngp.diagnostics.adequacy(
        digits, jax.random.key(3), DIGITS, operator, jnp.float32(noise),
        jnp.asarray(y, jnp.float32), num_starts=8, num_replicates=200, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", tiered(OPERATORS, slow={"dense", "blur"}))
def test_verdicts_on_digits(name):
    assert found(name, decoded(0), 0.05).verdict == "adequate"
    noisy = found(name, decoded(0), 0.05, actual=0.2)
    assert noisy.verdict == "noise_too_small"
    assert 2.5 < noisy.inflation < 6  # four times, known to a fifth from 30 data
    held_out = found(name, real(1)[0], 0.01)
    assert held_out.verdict == "noise_too_small"
    assert "MarginalNormal" in str(held_out)
    assert held_out.explained > 0.8
    inverted = found(name, 1 - decoded(0), 0.05)
    assert inverted.verdict == "out_of_range"
    assert "look at direction" in str(inverted)
    checkerboard = np.indices(SHAPE).sum(0) % 2
    assert found(name, checkerboard, 0.05).verdict == "out_of_range"
    if name == "identity":
        noise = np.random.default_rng(5).random(SHAPE)
        assert found(name, noise, 0.05).verdict == "out_of_range"


G = np.random.default_rng(4).normal(size=(30, 4))


@ngp.latent
def linear(y, noise=0.5):
    x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.asarray(G, z.dtype) @ z, 4))
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


@pytest.mark.slow
def test_p_values_are_uniform_where_the_model_is_right(rng):
    """A linear generator: both p-values are then exact, up to the number of replicates."""
    results = []
    for _ in range(40):
        y = G @ rng.normal(size=4) + 0.5 * rng.normal(size=30)
        results.append(
            ngp.diagnostics.adequacy(
                linear, jax.random.key(0), jnp.asarray(y, jnp.float32), num_starts=1
            )
        )
    for which in ("p_value", "latent_p_value"):
        values = [getattr(result, which) for result in results]
        assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert sum(r.verdict == "adequate" for r in results) >= 37  # 1.1 % are expected to fail


def test_closed_form_of_a_linear_fit(rng):
    y = G @ rng.normal(size=4) + 0.5 * rng.normal(size=30)
    result = ngp.diagnostics.adequacy(
        linear, jax.random.key(0), jnp.asarray(y, jnp.float32), num_starts=2
    )
    m = G / 0.5
    z = np.linalg.solve(np.eye(4) + m.T @ m, m.T @ (y / 0.5))
    residual = y / 0.5 - m @ z
    np.testing.assert_allclose(result.residual, residual, atol=1e-3)
    np.testing.assert_allclose(result.chi2, np.sum(residual**2), rtol=1e-3)
    _, s, vt = np.linalg.svd(m)
    np.testing.assert_allclose(result.degrees, 30 - np.sum(s**2 / (1 + s**2)), rtol=1e-4)
    expected = np.sum((vt @ z) ** 2 * (1 + s**2) / s**2)
    np.testing.assert_allclose(result.latent_distance, expected, rtol=1e-3)
    outside = residual - G @ np.linalg.lstsq(G, residual, rcond=None)[0]
    np.testing.assert_allclose(result.direction, outside / np.linalg.norm(outside), atol=1e-3)
    assert result.num_identified == 4
    assert result.predictive_p_value > 0.01
    assert result.noise_factor == pytest.approx(np.sqrt(result.chi2 / result.degrees))


def test_a_latent_far_out_is_out_of_range(rng):
    y = G @ np.array([9.0, 0.0, 0.0, 0.0]) + 0.5 * rng.normal(size=30)
    result = ngp.diagnostics.adequacy(
        linear, jax.random.key(0), jnp.asarray(y, jnp.float32), num_starts=2
    )
    assert result.latent_p_value < 1e-3
    assert result.verdict == "out_of_range"


def test_counts_and_several_sites(rng):
    @ngp.latent
    def counts(y, t):
        def net(z):
            return jnp.exp(3 + 0.4 * jnp.asarray(G, z.dtype) @ z)

        x = numpyro.sample("x", ngp.GANPrior(net, 4))
        numpyro.sample("y", dist.Poisson(x).to_event(1), obs=y)
        numpyro.sample("t", dist.Normal(x[0], 1.0), obs=t)

    mean = np.exp(3 + 0.4 * G @ np.array([1.0, -1.0, 0.5, 0.3]))
    for y, verdict in (
        (rng.poisson(mean), "adequate"),
        (rng.poisson(mean * rng.gamma(4.0, 0.25, size=30)), "noise_too_small"),
    ):
        result = ngp.diagnostics.adequacy(
            counts, jax.random.key(0), jnp.asarray(y), jnp.asarray(mean[0]), num_starts=4
        )
        assert result.verdict == verdict
        assert {k: v.shape for k, v in result.residual.items()} == {"y": (30,), "t": ()}


def test_pearson_residuals(rng):
    r = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    covariance = jnp.diag(jnp.array([1.0, 4.0, 9.0]))
    full = dist.MultivariateNormal(jnp.zeros((2, 3)), covariance)
    sd = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(pearson(full, r, "y"), r / sd, rtol=1e-6)
    diagonal = dist.Normal(0.0, jnp.asarray(sd[0])).expand([2, 3]).to_event(1)
    np.testing.assert_allclose(pearson(diagonal, r, "y"), r / sd, rtol=1e-6)
    marginal = MarginalNormal(Identity(3), jnp.zeros((2, 3)), event_scale=3.0, noise_scale=4.0)
    np.testing.assert_allclose(pearson(marginal, r, "y"), r / 5, rtol=1e-6)
    mask = jnp.array([True, False])
    masked = diagonal.mask(mask)
    np.testing.assert_allclose(pearson(masked, r, "y")[1], 0)
    assert int(unmasked(masked, (2, 3)).sum()) == 3
    entries = dist.Normal(jnp.zeros((2, 3)), 1.0).mask(jnp.array([True, True, False])).to_event(1)
    assert int(unmasked(entries, (2, 3)).sum()) == 4
    for heavy in (dist.Cauchy(0.0, 1.0), dist.Dirichlet(jnp.ones(3))):
        with pytest.raises(ValueError, match="posterior predictive draws"):
            pearson(heavy, r[0], "y")


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda k: ngp.diagnostics.adequacy(linear, k, jnp.ones(30), num_starts=0), ValueError,
         "num_starts=16"),
    ],
)  # fmt: skip
def test_errors(build, error, words):
    with pytest.raises(error, match=words):
        build(jax.random.key(0))


def test_out_of_range_says_why():
    """An improbable event of the prior is distinguished from one that the prior does not have."""
    from numpyro_genprior.diagnostics import Adequacy

    def text(explained, refit_latent_p):
        return str(Adequacy("out_of_range", 50.0, 20.0, 0.003, 0.1, 60.0, 9, 1e-6, explained, 1.4,
                             refit_latent_p, 0.5, None, 0.0, 0.0, {}))  # fmt: skip

    assert "extremely improbable" in text(0.9, 1e-5)
    assert "no event of the prior explains" in text(0.1, 1e-5)
    assert "no event of the prior explains" in text(0.9, 0.5)
