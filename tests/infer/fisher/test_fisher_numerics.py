"""Fisher information in single precision: cancellation, edges of ranges, limits."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from fisher_cases import INFORMATION

from numpyro_genprior.infer.fisher import special, whitened_parameters

WIDE = np.array([1e-3, 0.03, 0.5, 1.0, 4.0, 30.0, 300.0, 2000.0], np.float32)


def test_trigamma_differences_do_not_cancel():
    x = WIDE.astype(float)
    expected = scipy.special.polygamma(1, x) - 1 / x
    np.testing.assert_allclose(jax.jit(special.trigamma_excess)(WIDE), expected, rtol=2e-6)
    difference = scipy.special.polygamma(1, x / 2) - scipy.special.polygamma(1, (x + 1) / 2)
    expected = difference / 4 - (x + 3) / (2 * x * (x + 1) ** 2)
    np.testing.assert_allclose(jax.jit(special.student_t_df)(WIDE), expected, rtol=2e-6)


NB_CONCENTRATION = jax.jit(special.negative_binomial_concentration)


@pytest.mark.parametrize("r", [0.1, 1.0, 20.0, 3000.0])
@pytest.mark.parametrize("mean", [0.01, 3.0, 400.0])
def test_information_about_a_concentration_matches_the_sum_over_counts(r, mean):
    q = mean / (r + mean)
    y = np.arange(int(mean + 60 * math.sqrt(mean + mean**2 / r) + 60))
    increments = (mean - y) / ((r + y) * (r + mean))  # of the score, which do not cancel
    first = -q * q * sum(q**k / (k + 2) for k in range(200)) if q < 0.5 else np.log1p(-q) + q
    score = first + np.concatenate([[0], np.cumsum(increments)[:-1]])
    expected = np.sum(scipy.stats.nbinom.pmf(y, r, 1 - q) * score**2)
    got = NB_CONCENTRATION(*(jnp.float32(v) for v in (r, q, 1 - q)))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_least_informed_direction_of_beta_is_accurate():
    """Both shapes grow in proportion: if they are large, the data say little about that."""
    x, y = np.array([1e4, 1e3, 1e-3]), np.array([1e4, 1.0, 5.0])

    def distribution(t):
        return dist.Beta(t * jnp.asarray(x, jnp.float32), t * jnp.asarray(y, jnp.float32))

    one = jnp.array(1.0)
    rows = jax.jit(jax.jacfwd(lambda t: whitened_parameters(distribution(one), distribution(t))))(
        one
    )
    by_element = np.concatenate([np.asarray(rows)[:6].reshape(3, 2), np.asarray(rows)[6:, None]], 1)
    trigamma = scipy.special.polygamma
    expected = trigamma(1, x) * x**2 + trigamma(1, y) * y**2 - trigamma(1, x + y) * (x + y) ** 2
    np.testing.assert_allclose((by_element.astype(float) ** 2).sum(1), expected, rtol=1e-5)


EDGES = [
    lambda t: dist.Poisson(jnp.exp(t[0] - 500)),
    lambda t: dist.Poisson(t[0] * 0),
    lambda t: dist.Bernoulli(probs=jax.nn.sigmoid(t + jnp.array([-200.0, 200.0]))),
    lambda t: dist.Bernoulli(logits=t + jnp.array([-2e4, jnp.inf])),
    lambda t: dist.Binomial(3, probs=jnp.array([0.0, 1.0]) * t),
    lambda t: dist.Geometric(probs=jnp.array([0.0, 1.0]) * t),
    lambda t: dist.Categorical(probs=jax.nn.softmax(t * 1e3)),
    lambda t: dist.Categorical(logits=jnp.array([0.0, -jnp.inf]) + t),
    lambda t: dist.Multinomial(0, probs=jnp.array([0.0, 1.0]) * t),
    lambda t: dist.NegativeBinomialProbs(t[1], jnp.array([0.0, 1.0]) * t),
    lambda t: dist.NegativeBinomialLogits(t[1], jnp.array([-300.0, 300.0]) + t),
    lambda t: dist.NegativeBinomial2(t[1] * 1e-10, t),
    lambda t: dist.VonMises(t, jnp.array([0.0, 1e6]) * t),
    lambda t: dist.MultivariateStudentT(jnp.inf, t, jnp.eye(2)),
    lambda t: dist.MultivariateStudentT(1e-4 * t[0], t, jnp.eye(2) * t[1]),
    lambda t: dist.Normal(t, 0.0),
    lambda t: dist.StudentT(jnp.inf, t, 1.0),
    lambda t: dist.StudentT(jnp.array([1e-4, 1e30]) * t, t, t),
    lambda t: dist.Gamma(t * 1e8, t * 1e-8),
    lambda t: dist.Gamma(t * 1e-8, t * 1e8),
    lambda t: dist.Dirichlet(t * jnp.array([1e-8, 1e8])),
]


@functools.cache
def at_the_edges():
    """Whitened parameters of all `EDGES`, with forward and reverse derivatives."""
    point, tangent = jnp.array([1.0, 1.0]), jnp.array([1.0, -0.5])

    def one(distribution, point):
        def whitened(t):
            return whitened_parameters(distribution(point), distribution(t))

        value, forward = jax.jvp(whitened, (point,), (tangent,))
        return value, forward, jax.vjp(whitened, point)[1](jnp.ones_like(value))

    with numpyro.validation_enabled(False):
        return jax.jit(lambda point: [one(distribution, point) for distribution in EDGES])(point)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EDGES)))
def test_results_at_the_edge_are_finite(number):
    for leaf in jax.tree.leaves(at_the_edges()[number]):
        assert np.isfinite(leaf).all()


def test_vector_of_length_one_equals_scalar():
    """Student's t, whose scalar rule is accurate at large df."""
    df = jnp.array([0.5, 5.0, 1e3])
    vector = dist.MultivariateStudentT(df, jnp.zeros(1), jnp.full((1, 1), 0.7))
    np.testing.assert_allclose(
        INFORMATION(vector), INFORMATION(dist.StudentT(df, 0.0, 0.7)), rtol=1e-2, atol=1e-9
    )


@pytest.mark.parametrize("kappa", [0.01, 3.0, 14.9, 15.1, 200.0])
def test_von_mises_matches_quadrature(kappa):
    angle = 2 * np.pi * np.arange(4000) / 4000 - np.pi
    density = np.exp(kappa * (np.cos(angle) - 1))
    density /= density.sum()
    mean = np.sum(density * np.cos(angle))
    expected = np.sum(density * (np.cos(angle) - mean) ** 2), kappa * mean
    got = np.diag(INFORMATION(dist.VonMises(0.5, kappa)))
    np.testing.assert_allclose(got, expected, rtol=3e-4)


def test_infinite_df_equals_normal():
    got = INFORMATION(dist.StudentT(jnp.inf, 1.0, 0.5))
    np.testing.assert_allclose(got[1:, 1:], [[4, 0], [0, 8]], rtol=1e-6)
