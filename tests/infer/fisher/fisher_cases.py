"""Distributions with a point of their parameters, and the KL divergence or the support of each."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.special

import numpyro_genprior as ngp
from numpyro_genprior.infer.fisher import fisher_information, whitened_parameters

INFORMATION = jax.jit(fisher_information)


class Case(NamedTuple):
    """A distribution as a function of a flat parameter vector, and a point.

    `support` is "real", "positive", "unit", "circle", a number of counts, or a function that gives
    the KL divergence. `draw` is False if another case draws from a distribution of the same rule.
    """

    distribution: Callable[[jax.Array], dist.Distribution]
    point: tuple[float, ...]
    support: str | int | Callable[..., jax.Array]
    draw: bool = True


def laplace_kl(p, q):
    """To second order, because `abs` is not smooth: ``b exp(-u) + bu = b(1 + u²/2) + O(u³)``."""
    u = (q.loc - p.loc) / p.scale
    return jnp.log(q.scale / p.scale) + p.scale * (1 + u**2 / 2) / q.scale - 1


def gaussian_kl(p, q):
    """KL divergence between multivariate normals, by dense matrices."""
    difference = q[0] - p[0]
    precision = jnp.linalg.inv(q[1])
    return 0.5 * (
        jnp.trace(precision @ p[1])
        + difference @ precision @ difference
        + jnp.linalg.slogdet(q[1])[1]
    )


def mvn_kl(p, q):
    return gaussian_kl((p.loc, p.covariance_matrix), (q.loc, q.covariance_matrix))


def matrix_normal_kl(p, q):
    def dense(distribution):
        factor = jnp.kron(
            distribution.scale_tril_row, distribution.scale_tril_column
        )  # for rows stacked in order
        return distribution.loc.ravel(), factor @ factor.T

    return gaussian_kl(dense(p), dense(q))


def student_kl(p, q):
    """In two dimensions, up to a constant, by quadrature over distance and direction.

    The distance by Gauss-Jacobi: ``b = s / (ν + s)``, s its square, is Beta(1, ν/2).
    """
    b, weights = scipy.special.roots_jacobi(60, STUDENT[0] / 2 - 1, 0)
    angle = 2 * np.pi * np.arange(16) / 16
    s = STUDENT[0] * (1 + b) / (1 - b)  # b from -1 to 1
    z = np.sqrt(s)[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    y = p.loc[None] + jnp.asarray(z).reshape(-1, 2) @ p.scale_tril.T
    mass = jnp.repeat(jnp.asarray(weights / weights.sum()), 16) / 16
    return -jnp.sum(mass * q.log_prob(y))


def prior_kl(p, q):
    def dense(distribution):
        factor = distribution.factor.reshape(distribution.loc.size, -1)
        return distribution.loc.ravel(), factor @ factor.T + jnp.diag(distribution.diagonal.ravel())

    return gaussian_kl(dense(p), dense(q))


def field_kl(p, q):
    """With the circulant covariance as a matrix."""

    def dense(distribution):
        row = jnp.fft.irfft(distribution.spectrum, n=distribution.loc.size)
        index = np.arange(distribution.loc.size)
        return distribution.loc, row[(index[:, None] - index[None, :]) % distribution.loc.size]

    return gaussian_kl(dense(p), dense(q))


def dirichlet_kl(p, q):
    def log_normaliser(a):
        return jnp.sum(jax.scipy.special.gammaln(a)) - jax.scipy.special.gammaln(jnp.sum(a))

    mean_log = jax.grad(log_normaliser)(p.concentration)
    return log_normaliser(q.concentration) - mean_log @ q.concentration


def classes_kl(trials, log_probs):
    def kl(p, q):
        return -trials * jnp.sum(jnp.exp(log_probs(p)) * log_probs(q))

    return kl


def log_softmax(distribution):
    return jax.nn.log_softmax(distribution.logits)


def log_probs(distribution):
    return jnp.log(distribution.probs)


FACTOR = np.random.default_rng(0).normal(size=(3, 2))
TRIL = np.array([[1.0, 0, 0], [0.3, 0.7, 0], [-0.4, 0.2, 1.5]])
LOWER, SMALL = np.tril_indices(3), np.tril_indices(2)
PRIOR_FACTOR = np.random.default_rng(1).normal(size=(2, 2, 1))


STUDENT = (5.5, 0.3, -0.4, 0.7, 0.2, 1.3)  # df, location, rows of the factor


def student(t):
    return dist.MultivariateStudentT(t[0], t[1:3], jnp.zeros((2, 2)).at[SMALL].set(t[3:]))


def matrix_normal(t):
    rows, columns = (jnp.zeros((2, 2)).at[SMALL].set(u) for u in (t[4:7], t[7:]))
    return dist.MatrixNormal(t[:4].reshape(2, 2), rows, columns)


def mvn(t):
    return dist.MultivariateNormal(t[:3], scale_tril=jnp.zeros((3, 3)).at[LOWER].set(t[3:]))


CASES = {
    "normal": Case(lambda t: dist.Normal(t[0], t[1]), (0.3, 0.7), "real"),
    "lognormal": Case(lambda t: dist.LogNormal(t[0], t[1]), (0.3, 0.7), "positive"),
    "laplace": Case(lambda t: dist.Laplace(t[0], t[1]), (0.3, 0.7), laplace_kl),
    "cauchy": Case(lambda t: dist.Cauchy(t[0], t[1]), (0.3, 0.7), "real"),
    "half_cauchy": Case(lambda t: dist.HalfCauchy(t[0]), (0.7,), "positive"),
    "logistic": Case(lambda t: dist.Logistic(t[0], t[1]), (0.3, 0.7), "real"),
    "gumbel": Case(lambda t: dist.Gumbel(t[0], t[1]), (0.3, 0.7), "real"),
    "student": Case(lambda t: dist.StudentT(t[0], t[1], t[2]), (3.5, 0.3, 0.7), "real"),
    "half_normal": Case(lambda t: dist.HalfNormal(t[0]), (0.7,), "positive"),
    "exponential": Case(lambda t: dist.Exponential(t[0]), (1.7,), "positive"),
    "weibull": Case(lambda t: dist.Weibull(t[0], t[1]), (1.3, 2.2), "positive"),
    "gamma": Case(lambda t: dist.Gamma(t[0], t[1]), (2.4, 1.7), "positive"),
    "chi2": Case(lambda t: dist.Chi2(t[0]), (3.4,), "positive", draw=False),
    "inverse_gamma": Case(
        lambda t: dist.InverseGamma(t[0], t[1]), (2.4, 1.7), "positive", draw=False
    ),
    "von_mises": Case(lambda t: dist.VonMises(t[0], t[1]), (0.3, 2.2), "circle"),
    "beta": Case(lambda t: dist.Beta(t[0], t[1]), (2.4, 3.1), "unit", draw=False),
    "beta_proportion": Case(
        lambda t: dist.BetaProportion(t[0], t[1]), (0.4, 5.0), "unit", draw=False
    ),
    "poisson": Case(lambda t: dist.Poisson(t[0]), (2.5,), 60),
    "bernoulli_probs": Case(lambda t: dist.Bernoulli(probs=t[0]), (0.3,), 2),
    "bernoulli_logits": Case(lambda t: dist.Bernoulli(logits=t[0]), (-0.8,), 2),
    "binomial_probs": Case(lambda t: dist.Binomial(5, probs=t[0]), (0.3,), 6),
    "binomial_logits": Case(lambda t: dist.Binomial(5, logits=t[0]), (-0.8,), 6),
    "geometric_probs": Case(lambda t: dist.Geometric(probs=t[0]), (0.4,), 120),
    "geometric_logits": Case(lambda t: dist.Geometric(logits=t[0]), (-0.4,), 120),
    "negative_binomial_probs": Case(
        lambda t: dist.NegativeBinomialProbs(t[0], t[1]), (2.3, 0.4), 150
    ),
    "negative_binomial_logits": Case(
        lambda t: dist.NegativeBinomialLogits(t[0], t[1]), (2.3, -0.4), 150
    ),
    "negative_binomial_2": Case(lambda t: dist.NegativeBinomial2(t[0], t[1]), (3.0, 1.6), 250),
    "gamma_poisson": Case(lambda t: dist.GammaPoisson(t[0], t[1]), (2.3, 0.8), 150, draw=False),
    "dirichlet": Case(lambda t: dist.Dirichlet(t), (0.7, 2.4, 1.1), dirichlet_kl),
    "categorical_logits": Case(
        lambda t: dist.Categorical(logits=t), (0.3, -0.6, 1.0), classes_kl(1, log_softmax)
    ),
    "categorical_probs": Case(
        lambda t: dist.Categorical(probs=t), (0.2, 0.3, 0.5), classes_kl(1, log_probs)
    ),
    "multinomial_logits": Case(
        lambda t: dist.Multinomial(4, logits=t), (0.3, -0.6, 1.0), classes_kl(4, log_softmax)
    ),
    "multinomial_probs": Case(
        lambda t: dist.Multinomial(4, probs=t), (0.2, 0.3, 0.5), classes_kl(4, log_probs)
    ),
    "multivariate_normal": Case(mvn, (0.1, -0.2, 0.3, *TRIL[LOWER]), mvn_kl),
    "precision_matrix": Case(
        lambda t: dist.MultivariateNormal(
            t[:2], precision_matrix=jnp.stack([t[2:4], jnp.stack([t[3], t[4]])])
        ),
        (0.1, -0.2, 1.5, 0.4, 0.9),
        mvn_kl,
        draw=False,
    ),
    "multivariate_student": Case(student, STUDENT, student_kl),
    "matrix_normal": Case(
        matrix_normal, (0.1, -0.2, 0.3, 0.4, 0.7, 0.2, 1.3, 1.1, -0.4, 0.6), matrix_normal_kl
    ),
    "low_rank": Case(
        lambda t: dist.LowRankMultivariateNormal(t, jnp.asarray(FACTOR), jnp.array([0.5, 0.1, 2])),
        (0.1, -0.2, 0.3),
        mvn_kl,
    ),
    "gaussian_prior": Case(
        lambda t: ngp.GaussianPrior(
            t.reshape(2, 2), factor=jnp.asarray(PRIOR_FACTOR), diagonal=jnp.array([0.5, 0.2])
        ),
        (0.1, -0.2, 0.3, 0.4),
        prior_kl,
    ),
    "field": Case(
        lambda t: ngp.GaussianFieldPrior(4, t[4:], loc=t[:4]),
        (0.1, -0.2, 0.3, 0.4, 2.0, 1.0, 0.5),
        field_kl,
    ),
}


def information(distribution, point):
    root = jax.jit(
        jax.jacobian(lambda t: whitened_parameters(distribution(point), distribution(t)))
    )(point)
    return root.T @ root
