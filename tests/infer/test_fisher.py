"""Fisher information of observed laws against the KL divergence and the covariance of the score."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

import numpyro_genprior as ngp
from numpyro_genprior.infer.fisher import (
    fisher_information,
    register_fisher,
    special,
    whitened_parameters,
)


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """Programs run once here: most of what XLA does to make them fast costs more than it saves."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


class Case(NamedTuple):
    """A law as a function of a flat parameter vector, a point, and where it lives."""

    law: object
    point: tuple
    support: object  # "real", "positive", "unit", "circle", a number of counts, or a KL
    draw: bool = True  # False: another case draws with the same rule


def laplace_kl(p, q):
    """Smooth at equal locations, where `abs` is not: ``b exp(-u) + bu = b(1 + u²/2) + O(u³)``."""
    u = (q.loc - p.loc) / p.scale
    return jnp.log(q.scale / p.scale) + p.scale * (1 + u**2 / 2) / q.scale - 1


def gaussian_kl(p, q):
    """Between multivariate normals, by dense matrices."""
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
    def dense(law):
        factor = jnp.kron(law.scale_tril_row, law.scale_tril_column)  # of rows, one by one
        return law.loc.ravel(), factor @ factor.T

    return gaussian_kl(dense(p), dense(q))


def student_kl(p, q):
    """Of two dimensions, up to a constant: over the distance by Gauss and Jacobi, over directions.

    ``b = s / (ν + s)``, s the squared distance, is Beta(1, ν/2).
    """
    b, weights = scipy.special.roots_jacobi(60, STUDENT[0] / 2 - 1, 0)
    angle = 2 * np.pi * np.arange(16) / 16
    s = STUDENT[0] * (1 + b) / (1 - b)  # b from -1 to 1
    z = np.sqrt(s)[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    y = p.loc[None] + jnp.asarray(z).reshape(-1, 2) @ p.scale_tril.T
    mass = jnp.repeat(jnp.asarray(weights / weights.sum()), 16) / 16
    return -jnp.sum(mass * q.log_prob(y))


def prior_kl(p, q):
    def dense(law):
        factor = law.factor.reshape(law.loc.size, -1)
        return law.loc.ravel(), factor @ factor.T + jnp.diag(law.diagonal.ravel())

    return gaussian_kl(dense(p), dense(q))


def field_kl(p, q):
    """With a circulant covariance written out."""

    def dense(law):
        row = jnp.fft.irfft(law.spectrum, n=law.loc.size)
        index = np.arange(law.loc.size)
        return law.loc, row[(index[:, None] - index[None, :]) % law.loc.size]

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


def log_softmax(law):
    return jax.nn.log_softmax(law.logits)


def log_probs(law):
    return jnp.log(law.probs)


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
SIMPLEX = {"categorical_probs", "multinomial_probs"}
DRAWS = 4_000


def information(law, point):
    root = jax.jit(jax.jacobian(lambda t: whitened_parameters(law(point), law(t))))(point)
    return root.T @ root


def nodes(support):
    """Abscissae and weights of a double-exponential rule (Takahasi, Mori 1974), or the counts."""
    if isinstance(support, int):
        return np.arange(support), np.ones(support)
    if support == "circle":
        return 2 * np.pi * np.arange(100) / 100 - np.pi, np.full(100, 2 * np.pi / 100)
    t, step = np.linspace(-4.0, 4.0, 401, retstep=True)
    u, du = np.pi / 2 * np.sinh(t), np.pi / 2 * np.cosh(t) * step
    if support == "real":
        return np.sinh(u), np.cosh(u) * du
    if support == "positive":
        return np.exp(u), np.exp(u) * du
    inside = np.abs(u) < 15
    x = scipy.special.expit(2 * u[inside])
    return x, 2 * x * scipy.special.expit(-2 * u[inside]) * du[inside]


def kl_hessian(case, point):
    """The mass that the rule finds, and the Hessian of ``KL(p_point ‖ p_t)`` in t at the point."""
    if callable(case.support):
        return 1.0, jax.hessian(lambda t: case.support(case.law(point), case.law(t)))(point)
    x, weights = nodes(case.support)
    x = jnp.asarray(x)

    def cross_entropy(t, x):
        return -case.law(t).log_prob(x)

    mass = weights * jnp.exp(-jax.vmap(cross_entropy, (None, 0))(point, x))
    hessians = jax.vmap(jax.hessian(cross_entropy), (None, 0))(point, x)
    hessians = jnp.where(mass[:, None, None] > 1e-200, hessians, 0)
    return jnp.sum(mass), jnp.tensordot(mass, hessians, 1)


@pytest.mark.float64
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_hessian_of_the_kl_divergence(name):
    case = CASES[name]
    point = jnp.asarray(case.point)
    with jax.numpy_rank_promotion("allow"):
        mass, expected = jax.jit(lambda point: kl_hessian(case, point))(point)
    # Our quadrature for concentrations, and NumPyro's betaln, hold to about 1e-7.
    tolerance = 1e-6 if "negative" in name or name == "gamma_poisson" else 1e-8
    np.testing.assert_allclose(mass, 1, rtol=tolerance)
    np.testing.assert_allclose(
        information(case.law, point), expected, rtol=tolerance, atol=tolerance * expected.max()
    )


@functools.cache
def scores(kind):
    """Of all laws of a kind, by one program: squares of the score at draws, and what we say."""
    cases = {n: case for n, case in CASES.items() if case.draw and type(case.support) is kind}
    points = {name: jnp.asarray(case.point) for name, case in cases.items()}
    key = jax.random.key(20240607)
    with jax.numpy_rank_promotion("allow"):
        draws = {n: case.law(points[n]).sample(key, (DRAWS,)) for n, case in cases.items()}

    @jax.jit
    def program(points, draws):
        found = {}
        for name, case in cases.items():
            score = jax.vmap(jax.grad(lambda t, y, c=case: c.law(t).log_prob(y)), (None, 0))
            with jax.numpy_rank_promotion("allow"):
                one = score(points[name], draws[name])
            found[name] = one[:, :, None] * one[:, None, :], information(case.law, points[name])
        return found

    return jax.device_get(program(points, draws))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.draw])
def test_it_is_the_covariance_of_the_score(name):
    products, got = scores(type(CASES[name].support))[name]
    products = products.astype(np.float64)
    error = products.std(0) / math.sqrt(DRAWS)
    if name in SIMPLEX:  # the law is defined on the simplex: compare tangents of it
        basis = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
        products = basis @ products @ basis.T
        error = products.std(0) / math.sqrt(DRAWS)
        got = basis @ got @ basis.T
    assert np.all(np.abs(products.mean(0) - got) < 5 * error + 2e-5 * got.max())


# ---- numerics in single precision ----------------------------------------------------------------

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
def test_information_about_a_concentration_is_that_of_the_sum_over_counts(r, mean):
    q = mean / (r + mean)
    y = np.arange(int(mean + 60 * math.sqrt(mean + mean**2 / r) + 60))
    increments = (mean - y) / ((r + y) * (r + mean))  # of the score, so that nothing cancels
    first = -q * q * sum(q**k / (k + 2) for k in range(200)) if q < 0.5 else np.log1p(-q) + q
    score = first + np.concatenate([[0], np.cumsum(increments)[:-1]])
    expected = np.sum(scipy.stats.nbinom.pmf(y, r, 1 - q) * score**2)
    got = NB_CONCENTRATION(*(jnp.float32(v) for v in (r, q, 1 - q)))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_the_little_known_direction_of_beta_keeps_its_digits():
    """Both shapes grow together: where they are large, data tell little of that."""
    x, y = np.array([1e4, 1e3, 1e-3]), np.array([1e4, 1.0, 5.0])

    def law(t):
        return dist.Beta(t * jnp.asarray(x, jnp.float32), t * jnp.asarray(y, jnp.float32))

    one = jnp.array(1.0)
    rows = jax.jit(jax.jacfwd(lambda t: whitened_parameters(law(one), law(t))))(one)
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
    """Whitened parameters and their derivatives, forward and back, of all the laws."""
    point, tangent = jnp.array([1.0, 1.0]), jnp.array([1.0, -0.5])

    def one(law, point):
        def whitened(t):
            return whitened_parameters(law(point), law(t))

        value, forward = jax.jvp(whitened, (point,), (tangent,))
        return value, forward, jax.vjp(whitened, point)[1](jnp.ones_like(value))

    with numpyro.validation_enabled(False):
        return jax.jit(lambda point: [one(law, point) for law in EDGES])(point)


@pytest.mark.parametrize("number", range(len(EDGES)))
def test_at_the_edge_the_numbers_are_finite(number):
    for leaf in jax.tree.leaves(at_the_edges()[number]):
        assert np.isfinite(leaf).all()


INFORMATION = jax.jit(fisher_information)


def test_a_vector_of_length_one_is_a_number():
    """Student's t has the rule of numbers, which keeps its digits at large df."""
    df = jnp.array([0.5, 5.0, 1e3])
    vector = dist.MultivariateStudentT(df, jnp.zeros(1), jnp.full((1, 1), 0.7))
    np.testing.assert_allclose(
        INFORMATION(vector), INFORMATION(dist.StudentT(df, 0.0, 0.7)), rtol=1e-2, atol=1e-9
    )


@pytest.mark.parametrize("kappa", [0.01, 3.0, 14.9, 15.1, 200.0])
def test_a_direction_is_known_as_well_as_quadrature_says(kappa):
    angle = 2 * np.pi * np.arange(4000) / 4000 - np.pi
    density = np.exp(kappa * (np.cos(angle) - 1))
    density /= density.sum()
    mean = np.sum(density * np.cos(angle))
    expected = np.sum(density * (np.cos(angle) - mean) ** 2), kappa * mean
    got = np.diag(INFORMATION(dist.VonMises(0.5, kappa)))
    np.testing.assert_allclose(got, expected, rtol=3e-4)


def test_a_large_df_is_the_normal_law():
    got = INFORMATION(dist.StudentT(jnp.inf, 1.0, 0.5))
    np.testing.assert_allclose(got[1:, 1:], [[4, 0], [0, 8]], rtol=1e-6)


# ---- wrappers, masks, scales ---------------------------------------------------------------------


def gram(law, point, **kwargs):
    @jax.jit
    def root(point):
        return jax.jacobian(lambda t: whitened_parameters(law(t), law(t), **kwargs))(point)

    root = np.asarray(root(point))
    return root.T @ root, root.shape[0]


def by_hand(weights, sd=0.5):
    """Information about (five means, one scale) when observation i counts weights[i] times."""
    return np.diag([*(weights / sd**2), 2 * weights.sum() / sd**2])


POINT = jnp.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def rows(t):
    return dist.Normal(t[:5], t[5])


MASK = np.arange(15).reshape(3, 5) % 4 != 0
WRAPPED = {
    "plain": (rows, np.ones((1, 5))),
    "expand": (lambda t: rows(t).expand([3, 5]), np.ones((3, 5))),
    "to_event": (lambda t: rows(t).expand([3, 5]).to_event(1), np.ones((3, 5))),
    "expand_event": (lambda t: rows(t).to_event(1).expand([3]), np.ones((3, 5))),
    "event_twice": (lambda t: rows(t).to_event(1).expand([3]).to_event(1), np.ones((3, 5))),
    "mask": (lambda t: rows(t).expand([3, 5]).mask(jnp.asarray(MASK)), MASK),
    "mask_spreads": (lambda t: rows(t).mask(jnp.asarray(MASK)), MASK),
    "mask_event": (
        lambda t: rows(t).expand([3, 5]).to_event(1).mask(jnp.array([True, False, True])),
        np.outer([1, 0, 1], np.ones(5)),
    ),
    "masked_then_event": (
        lambda t: rows(t).expand([3, 5]).mask(jnp.asarray(MASK)).to_event(2),
        MASK,
    ),
    "mask_false": (lambda t: rows(t).mask(False), np.zeros((1, 5))),
    "mask_true": (lambda t: rows(t).mask(True), np.ones((1, 5))),
    "transform": (
        lambda t: dist.TransformedDistribution(
            rows(t).expand([3, 5]),
            [dist.transforms.AffineTransform(2.0, 3.0), dist.transforms.ExpTransform()],
        ),
        np.ones((3, 5)),
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_every_element_is_an_observation(name):
    law, weights = WRAPPED[name]
    weights = np.asarray(weights, float)
    got, count = gram(law, POINT)
    assert count == 2 * weights.size
    np.testing.assert_allclose(got, by_hand(weights.sum(0)), rtol=1e-5, atol=1e-5)


def test_dimensions_of_size_one_expand_in_the_middle():
    def law(t):
        return dist.Normal(t[:, None], jnp.ones((2, 1))).expand([4, 2, 3])

    got, _ = gram(law, jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(got, 12 * np.eye(2), rtol=1e-6)


@pytest.mark.parametrize(
    "scale", [3.0, np.array([1.0, 0.0, 2.0, 4.0, 0.5]), np.array([[1.0], [0.0], [2.5]])]
)
def test_the_scale_of_a_site_counts_observations(scale):
    got, _ = gram(lambda t: rows(t).expand([3, 5]), POINT, scale=scale)
    weights = np.broadcast_to(scale, (3, 5)).sum(0)
    np.testing.assert_allclose(got, by_hand(weights), rtol=1e-5, atol=1e-5)


def test_a_value_with_more_dimensions_than_its_law_is_many_observations():
    got, count = gram(rows, POINT, value=np.zeros((7, 5)))
    assert count == 70
    np.testing.assert_allclose(got, by_hand(np.full(5, 7.0)), rtol=1e-5, atol=1e-5)
    got, _ = gram(lambda t: rows(t).to_event(1), POINT, value=np.zeros((7, 5)))
    np.testing.assert_allclose(got, by_hand(np.full(5, 7.0)), rtol=1e-5, atol=1e-5)


def test_vectors_expand_too():
    def law(t):
        return dist.MultivariateNormal(t, scale_tril=jnp.asarray(TRIL, t.dtype)).expand([4])

    got, _ = gram(law, jnp.zeros(3), scale=jnp.array([1.0, 2.0, 0.0, 0.5]))
    np.testing.assert_allclose(got, 3.5 * np.linalg.inv(TRIL @ TRIL.T), rtol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("gamma", 3), ("student", 3), ("dirichlet", 3)])
def test_a_batch_is_its_elements(name, size):
    law, point = CASES[name].law, jnp.asarray(CASES[name].point)
    batch = point[None] * jnp.linspace(0.5, 2.0, size)[:, None]
    one = jax.vmap(lambda t: information(law, t))(batch)
    stacked = INFORMATION(law(batch if name == "dirichlet" else batch.T))
    np.testing.assert_allclose(stacked, one, rtol=2e-5, atol=1e-6)


def test_the_event_law_of_a_decoder():
    prior = ngp.VAEPrior(lambda z: jnp.stack([z[0], z[0] * z[1], z[1]]), 2, scale=0.1)
    got, _ = gram(prior.event_given, jnp.array([0.3, 2.0]))
    jacobian = np.array([[1, 0], [2.0, 0.3], [0, 1]])
    np.testing.assert_allclose(got, 100 * jacobian.T @ jacobian, rtol=1e-5)


# ---- cost and derivatives ------------------------------------------------------------------------


def count(jaxpr, name):
    total = 0
    for equation in jaxpr.eqns:
        total += equation.primitive.name == name
        inner = (getattr(value, "jaxpr", value) for value in equation.params.values())
        total += sum(count(jaxpr, name) for jaxpr in inner if hasattr(jaxpr, "eqns"))
    return total


def test_a_product_is_one_pass_forward_and_one_back():
    first, second = jnp.ones((4, 3)), jnp.ones((6, 4))

    def law(x):
        return dist.Gamma(jnp.exp(second @ jnp.tanh(first @ x)), 2.0).to_event(1)

    x = jnp.ones(3)

    def product(v):
        _, forward = jax.linearize(lambda x: whitened_parameters(law(x), law(x)), x)
        back = jax.linear_transpose(forward, x)
        return jax.make_jaxpr(lambda v: back(forward(v))[0])(v)

    assert count(product(x).jaxpr, "dot_general") == 4  # two layers, forward and transposed


def test_where_the_information_is_taken_is_constant():
    def second(x):
        return jax.jacobian(lambda x: whitened_parameters(dist.Normal(0, x), dist.Normal(0, x)))(x)

    np.testing.assert_allclose(second(jnp.array(0.5))[1], math.sqrt(2) / 0.5, rtol=1e-6)
    np.testing.assert_array_equal(jax.jacobian(second)(jnp.array(0.5)), 0)


# ---- refusals ------------------------------------------------------------------------------------

ONE = jnp.ones(3)
REFUSED_AT_ONCE = {
    "LeftTruncatedDistribution.*register_fisher": lambda t: dist.TruncatedNormal(t[0], 1, low=0.0),
    "ZeroInflatedProbs.*register_fisher": lambda t: dist.ZeroInflatedDistribution(
        dist.Poisson(t[0]), gate=0.1
    ),
    "MixtureGeneral.*register_fisher": lambda t: dist.MixtureGeneral(
        dist.Categorical(probs=jnp.ones(2) / 2), [dist.Normal(t[0], 1), dist.Normal(0, 1)]
    ),
    "numpyro.factor": lambda t: dist.Unit(t[0]),
    "with noise": lambda t: dist.Delta(t[0]),
    "thicken": lambda t: ngp.GANPrior(lambda z: jnp.tile(z, 2), 2),
    "event_given": lambda t: ngp.VAEPrior(lambda z: jnp.tile(z, 2), 2, scale=0.1),
}
REFUSED_WHEN_LATENT = {
    "dist.MultivariateNormal": lambda t, c: dist.LowRankMultivariateNormal(
        t, c[:, None], jnp.ones(3)
    ),
    "covariance of an observed GaussianPrior": lambda t, c: ngp.GaussianPrior(
        t, factor=jnp.ones((3, 1)), diagonal=c
    ),
    "into the base law": lambda t, c: dist.TransformedDistribution(
        dist.Normal(t, 1.0), dist.transforms.AffineTransform(c, 1.0)
    ),
    "support moves": lambda t, c: dist.Uniform(c, 5.0),
}


@pytest.mark.parametrize("match", REFUSED_AT_ONCE)
def test_a_law_without_a_rule_is_refused_by_name(match):
    law = REFUSED_AT_ONCE[match](ONE)
    with pytest.raises(ValueError, match=match) as raised:
        whitened_parameters(law, law, name="y")
    assert "'y'" in str(raised.value)


@pytest.mark.parametrize("match", REFUSED_WHEN_LATENT)
def test_what_is_taken_as_known_must_not_depend_on_latent_variables(match):
    law = REFUSED_WHEN_LATENT[match]

    def fixed(t):
        return whitened_parameters(law(t, ONE), law(t, ONE))

    def moving(t):
        return whitened_parameters(law(t, ONE), law(t, jnp.exp(t)))

    jax.eval_shape(jax.jit(jax.jacrev(fixed)), ONE)
    jax.eval_shape(jax.vmap(jax.jacfwd(fixed)), jnp.ones((2, 3)))
    for derivative in (
        jax.jacfwd(moving),
        jax.jacrev(jax.jit(moving)),
        jax.jit(jax.jacfwd(moving)),
    ):
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(derivative, ONE)


def test_two_laws_of_other_structure_are_refused():
    with pytest.raises(ValueError, match="same function"):
        whitened_parameters(dist.Normal(0, 1), dist.Cauchy(0, 1))


def test_a_rule_is_added_and_inherited():
    class Wave(dist.Normal):
        """A normal whose scale is known."""

    class Swell(Wave):
        pass

    register_fisher(
        Wave,
        parameters=lambda law: jnp.broadcast_to(law.loc, law.batch_shape),
        whiten=lambda law, tangent: tangent / law.scale,
    )
    np.testing.assert_allclose(fisher_information(Swell(1.0, 0.5)), [[4.0]])
    register_fisher(Wave, parameters=lambda law: law.loc, whiten=lambda law, t: jnp.zeros(7))
    law = Swell(jnp.zeros(3), 0.5)
    with pytest.raises(ValueError, match="batch shape"):
        whitened_parameters(law, law)
    with pytest.raises(TypeError, match="BernoulliProbs"):
        register_fisher(dist.Bernoulli, parameters=lambda law: law, whiten=lambda law, t: t)
