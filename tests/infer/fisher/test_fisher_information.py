"""Fisher information against the Hessian of the KL divergence and the covariance of the score."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from fisher_cases import CASES, information

SIMPLEX = {"categorical_probs", "multinomial_probs"}
DRAWS = 4_000


def nodes(support):
    """Nodes and weights of a double-exponential rule (Takahasi & Mori 1974), or the counts."""
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
    """The mass found by the quadrature, and the Hessian of ``KL(p_point ‖ p_t)`` at t = point."""
    if callable(case.support):
        return 1.0, jax.hessian(
            lambda t: case.support(case.distribution(point), case.distribution(t))
        )(point)
    x, weights = nodes(case.support)
    x = jnp.asarray(x)

    def cross_entropy(t, x):
        return -case.distribution(t).log_prob(x)

    mass = weights * jnp.exp(-jax.vmap(cross_entropy, (None, 0))(point, x))
    hessians = jax.vmap(jax.hessian(cross_entropy), (None, 0))(point, x)
    hessians = jnp.where(mass[:, None, None] > 1e-200, hessians, 0)
    return jnp.sum(mass), jnp.tensordot(mass, hessians, 1)


@pytest.mark.float64
@pytest.mark.parametrize("name", CASES)
def test_information_is_the_hessian_of_the_kl_divergence(name):
    case = CASES[name]
    point = jnp.asarray(case.point)
    with jax.numpy_rank_promotion("allow"):
        mass, expected = jax.jit(lambda point: kl_hessian(case, point))(point)
    # The quadrature for concentrations, and NumPyro's betaln, are accurate to about 1e-7.
    tolerance = 1e-6 if "negative" in name or name == "gamma_poisson" else 1e-8
    np.testing.assert_allclose(mass, 1, rtol=tolerance)
    np.testing.assert_allclose(
        information(case.distribution, point),
        expected,
        rtol=tolerance,
        atol=tolerance * expected.max(),
    )


@functools.cache
def scores(kind):
    """For cases with this type of support: squares of the score at draws, and our information."""
    cases = {n: case for n, case in CASES.items() if case.draw and type(case.support) is kind}
    points = {name: jnp.asarray(case.point) for name, case in cases.items()}
    key = jax.random.key(20240607)
    with jax.numpy_rank_promotion("allow"):
        draws = {n: case.distribution(points[n]).sample(key, (DRAWS,)) for n, case in cases.items()}

    @jax.jit
    def program(points, draws):
        found = {}
        for name, case in cases.items():
            score = jax.vmap(
                jax.grad(lambda t, y, c=case: c.distribution(t).log_prob(y)), (None, 0)
            )
            with jax.numpy_rank_promotion("allow"):
                one = score(points[name], draws[name])
            found[name] = (
                one[:, :, None] * one[:, None, :],
                information(case.distribution, points[name]),
            )
        return found

    return jax.device_get(program(points, draws))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.draw])
def test_information_is_the_covariance_of_the_score(name):
    products, got = scores(type(CASES[name].support))[name]
    products = products.astype(np.float64)
    error = products.std(0) / math.sqrt(DRAWS)
    if name in SIMPLEX:  # probabilities sum to 1: compare tangents of the simplex
        basis = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
        products = basis @ products @ basis.T
        error = products.std(0) / math.sqrt(DRAWS)
        got = basis @ got @ basis.T
    assert np.all(np.abs(products.mean(0) - got) < 5 * error + 2e-5 * got.max())
