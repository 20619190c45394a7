"""Fisher information of batches, events, masks and scales; the cost of products; derivatives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from fisher_cases import CASES, INFORMATION, TRIL, information

import numpyro_genprior as ngp
from numpyro_genprior.infer.fisher import whitened_parameters


def gram(distribution, point, **kwargs):
    @jax.jit
    def root(point):
        return jax.jacobian(
            lambda t: whitened_parameters(distribution(t), distribution(t), **kwargs)
        )(point)

    root = np.asarray(root(point))
    return root.T @ root, root.shape[0]


def by_hand(weights, sd=0.5):
    """Information about five means and one scale if observation i counts weights[i] times."""
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
def test_every_batch_element_is_an_observation(name):
    distribution, weights = WRAPPED[name]
    weights = np.asarray(weights, float)
    got, count = gram(distribution, POINT)
    assert count == 2 * weights.size
    np.testing.assert_allclose(got, by_hand(weights.sum(0)), rtol=1e-5, atol=1e-5)


def test_expand_of_inner_dimensions_of_size_one():
    def distribution(t):
        return dist.Normal(t[:, None], jnp.ones((2, 1))).expand([4, 2, 3])

    got, _ = gram(distribution, jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(got, 12 * np.eye(2), rtol=1e-6)


@pytest.mark.parametrize(
    "scale", [3.0, np.array([1.0, 0.0, 2.0, 4.0, 0.5]), np.array([[1.0], [0.0], [2.5]])]
)
def test_scale_of_a_site_multiplies_information(scale):
    got, _ = gram(lambda t: rows(t).expand([3, 5]), POINT, scale=scale)
    weights = np.broadcast_to(scale, (3, 5)).sum(0)
    np.testing.assert_allclose(got, by_hand(weights), rtol=1e-5, atol=1e-5)


def test_value_with_more_dimensions_is_many_observations():
    got, count = gram(rows, POINT, value=np.zeros((7, 5)))
    assert count == 70
    np.testing.assert_allclose(got, by_hand(np.full(5, 7.0)), rtol=1e-5, atol=1e-5)
    got, _ = gram(lambda t: rows(t).to_event(1), POINT, value=np.zeros((7, 5)))
    np.testing.assert_allclose(got, by_hand(np.full(5, 7.0)), rtol=1e-5, atol=1e-5)


def test_expand_of_a_vector_distribution():
    def distribution(t):
        return dist.MultivariateNormal(t, scale_tril=jnp.asarray(TRIL, t.dtype)).expand([4])

    got, _ = gram(distribution, jnp.zeros(3), scale=jnp.array([1.0, 2.0, 0.0, 0.5]))
    np.testing.assert_allclose(got, 3.5 * np.linalg.inv(TRIL @ TRIL.T), rtol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("gamma", 3), ("student", 3), ("dirichlet", 3)])
def test_batch_equals_its_elements(name, size):
    distribution, point = CASES[name].distribution, jnp.asarray(CASES[name].point)
    batch = point[None] * jnp.linspace(0.5, 2.0, size)[:, None]
    one = jax.vmap(lambda t: information(distribution, t))(batch)
    stacked = INFORMATION(distribution(batch if name == "dirichlet" else batch.T))
    np.testing.assert_allclose(stacked, one, rtol=2e-5, atol=1e-6)


def test_event_given_a_latent_of_a_vae():
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


def test_product_is_one_forward_and_one_transposed_pass():
    first, second = jnp.ones((4, 3)), jnp.ones((6, 4))

    def distribution(x):
        return dist.Gamma(jnp.exp(second @ jnp.tanh(first @ x)), 2.0).to_event(1)

    x = jnp.ones(3)

    def product(v):
        _, forward = jax.linearize(
            lambda x: whitened_parameters(distribution(x), distribution(x)), x
        )
        back = jax.linear_transpose(forward, x)
        return jax.make_jaxpr(lambda v: back(forward(v))[0])(v)

    assert count(product(x).jaxpr, "dot_general") == 4  # two layers, forward and transposed


def test_point_of_the_information_is_constant():
    def second(x):
        return jax.jacobian(lambda x: whitened_parameters(dist.Normal(0, x), dist.Normal(0, x)))(x)

    np.testing.assert_allclose(second(jnp.array(0.5))[1], math.sqrt(2) / 0.5, rtol=1e-6)
    np.testing.assert_array_equal(jax.jacobian(second)(jnp.array(0.5)), 0)
