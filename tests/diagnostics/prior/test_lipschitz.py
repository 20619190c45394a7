"""`lipschitz` and `effective_dimension` against matrices, products of norms and counted kinks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions.transforms import LowerCholeskyAffine
from tiers import tiered

import numpyro_genprior as ngp
from numpyro_genprior.diagnostics.prior.jaxpr_lipschitz import layer_bound
from numpyro_genprior.networks.architectures import ConvDecoder, MLPDecoder

lipschitz, effective_dimension = ngp.diagnostics.lipschitz, ngp.diagnostics.effective_dimension
W = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def matrix():
    return ngp.GANPrior(lambda z: jnp.asarray(W) @ z, 3)


def test_a_matrix(matrix, key):
    found = lipschitz(matrix, key, num_draws=4)
    largest = np.linalg.norm(W, 2)
    np.testing.assert_allclose(found.values, largest, rtol=1e-5)
    np.testing.assert_allclose(found.bound, largest, rtol=1e-5)
    assert found.kinks is None
    a = np.random.default_rng(1).normal(size=(2, 7)).astype(np.float32)
    seen = lipschitz(matrix, key, num_draws=4, operator=lambda x: jnp.asarray(a) @ x)
    np.testing.assert_allclose(seen.max, np.linalg.norm(a @ W, 2), rtol=1e-5)
    np.testing.assert_allclose(seen.bound, np.linalg.norm(a, 2) * largest, rtol=1e-5)


def test_dimension_of_a_matrix(matrix, key):
    found = effective_dimension(matrix, key, num_draws=3)
    singular = np.linalg.svd(W)[1]
    np.testing.assert_allclose(found.spectrum, np.tile(singular, (3, 1)), rtol=1e-5)
    shares = singular**2 / np.sum(singular**2)
    np.testing.assert_allclose(found.dimension, np.exp(-np.sum(shares * np.log(shares))), rtol=1e-5)
    np.testing.assert_allclose(found.condition_number, singular[0] / singular[-1], rtol=1e-4)
    assert found.verdict == "singular"
    assert "thicken" in str(found)


def test_local_constants_are_those_of_the_jacobian(key):
    net = MLPDecoder(4, (9,), hidden=(16, 16), activation="tanh", key=key)
    prior = ngp.GANPrior(net, 4)
    found = lipschitz(prior, key, num_draws=5)
    draws = jax.vmap(lambda k: jax.random.normal(jax.random.split(k)[0], (4,)))(
        jax.random.split(key, 5)
    )
    expected = [np.linalg.norm(jax.jacobian(net)(z), 2) for z in draws]
    np.testing.assert_allclose(found.values, expected, rtol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "leaky_relu", "softplus", "silu"])
def test_bound_of_a_perceptron_is_the_product_of_its_norms(activation, key):
    net = MLPDecoder(4, (9,), hidden=(16, 16), activation=activation, key=key)
    norms = [np.linalg.norm(layer.weight, 2) for layer in net.dense.layers]
    slope = 1.1 if activation == "silu" else 1.0
    found, unbounded = layer_bound(net, 4)
    np.testing.assert_allclose(found, np.prod(norms) * slope**2 * 0.25, rtol=1e-5)  # sigmoid output
    assert unbounded == ""


@pytest.mark.parametrize("make", tiered([ConvDecoder, None], slow=[ConvDecoder]))
def test_bound_holds_for_convolutions(make, key):
    if make is None:
        conv = eqx.nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1, key=key)
        net = lambda z: jax.nn.relu(conv(jnp.outer(jnp.ones(4), z).reshape(4, 2, 2)))  # noqa: E731
    else:
        net = make(4, (8, 8), channels=(4,), key=key)
    found, unbounded = layer_bound(net, 4)
    z = jax.random.normal(key, (20, 4))
    steepest = max(np.linalg.norm(jax.jacobian(net)(p).reshape(-1, 4), 2) for p in z)
    assert unbounded == ""
    assert steepest <= found < 100 * steepest


def test_no_bound_is_said(key):
    found = lipschitz(ngp.GANPrior(lambda z: jnp.exp(z), 2), key, num_draws=2)
    assert np.isinf(found.bound)
    assert "none is known for exp" in str(found)


def test_kinks_are_counted(key):
    """Rectifiers at 0.05, 0.15, ..., 0.95: ten in a unit, crossed once each along a line."""
    prior = ngp.GANPrior(lambda z: jax.nn.relu(z[0] - 0.05 - 0.1 * jnp.arange(10)), 1)
    path = jnp.array([[0.0], [1.0], [0.0]])
    found = lipschitz(prior, key, num_draws=2, path=path)
    np.testing.assert_allclose(found.kinks, 10)
    assert "10 kinks" in str(found)
    with pytest.raises(ValueError, match="x_latent"):
        lipschitz(prior, key, path=jnp.zeros((3, 2)))


def test_a_squeezed_flow_is_told(key):
    """The map to N(0, diag(1, ε²)): condition number 1/ε, log-determinant log ε."""
    for squeeze, verdict in ((0.1, "full"), (0.001, "imitates_manifold")):
        transform = LowerCholeskyAffine(jnp.zeros(2), jnp.diag(jnp.array([1.0, squeeze])))
        prior = ngp.FlowPrior(transform, latent=2)
        found = effective_dimension(prior, key, num_draws=3)
        np.testing.assert_allclose(found.condition_number, 1 / squeeze, rtol=1e-4)
        np.testing.assert_allclose(found.log_dets, np.log(squeeze), rtol=1e-4)
        assert found.verdict == verdict
        assert ("low noise" in str(found)) == (verdict != "full")


def test_mistakes(key, matrix):
    with pytest.raises(TypeError, match="Pass the prior"):
        lipschitz(lambda z: z, key)
    with pytest.raises(ValueError, match="num_draws"):
        effective_dimension(matrix, key, num_draws=0)


def test_a_jump_has_no_bound():
    """Steps have none; continuous pieces that nobody can vouch for are refused, too."""
    jumps = [
        lambda z: jnp.where(z > 0, z + 5, z),
        lambda z: z + (z > 0).astype(z.dtype),
        lambda z: jnp.sign(z),
    ]
    assert all(np.isinf(layer_bound(jump, 2)[0]) for jump in jumps)


def test_activations_are_known_by_what_they_do():
    """Steep arguments count, and the name of another function says nothing."""
    assert layer_bound(lambda z: jax.nn.elu(z, 3.0), 2)[0] == 3.0
    assert layer_bound(lambda z: jax.nn.leaky_relu(z, -2.0), 2)[0] == 2.0

    @jax.jit
    def softplus(z):
        return 10 * z

    assert layer_bound(softplus, 2)[0] == 10.0
