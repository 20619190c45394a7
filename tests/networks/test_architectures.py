"""The built-in architectures: shapes, configurations, convolutions as matrix products."""

import copy
import json
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flowjax.distributions import AbstractTransformed
from jax import lax

from numpyro_genprior.flows.architectures import AffineCouplingFlow, SplineCouplingFlow
from numpyro_genprior.networks import architectures as arch
from numpyro_genprior.networks.architectures.resampling import DownBlock, UpBlock

KEY = jr.key(0)

NETS = {
    "mlp_decoder": lambda key: arch.MLPDecoder(3, (4, 6), hidden=(5,), condition_size=2, key=key),
    "mlp_decoder_linear": lambda key: arch.MLPDecoder(3, (), hidden=(), output="identity", key=key),
    "mlp_encoder": lambda key: arch.MLPEncoder((4, 6), 3, hidden=(5, 5), key=key),
    "mlp_critic": lambda key: arch.MLPCritic((4, 6), hidden=(5,), activation="elu", key=key),
    "conv_decoder": lambda key: arch.ConvDecoder(3, (4, 8), channels=(3, 2), hidden=(5,), key=key),
    "conv_decoder_colour": lambda key: arch.ConvDecoder(3, (4, 8, 3), channels=(2,), key=key),
    "conv_encoder": lambda key: arch.ConvEncoder((4, 8), 3, channels=(2, 3), key=key),
    "conv_critic": lambda key: arch.ConvCritic((4, 8, 3), channels=(2,), hidden=(4,), key=key),
}


@pytest.mark.parametrize("name", NETS)
def test_config_round_trip(name):
    net = NETS[name](KEY)
    config = json.loads(json.dumps(net.config))
    again = arch.build(type(net).__name__, config, key=KEY)
    assert eqx.tree_equal(net, again)
    assert jax.tree.structure(arch.build(type(net).__name__, config)) == jax.tree.structure(net)
    assert eqx.tree_equal(pickle.loads(pickle.dumps(net)), net)
    assert eqx.tree_equal(copy.deepcopy(net), net)
    hash(jax.tree.structure(net))


@pytest.mark.parametrize("name", NETS)
def test_shapes(name):
    net = NETS[name](KEY)
    if "decoder" in name:
        size = getattr(net, "condition_size", None)
        args = (jnp.zeros(3),) if size is None else (jnp.zeros(3), jnp.zeros(size))
        assert eqx.filter_eval_shape(net, *args).shape == net.event_shape
    elif "encoder" in name:
        loc, scale = net(jnp.zeros(net.event_shape))
        assert loc.shape == scale.shape == (3,)
        assert bool(jnp.all(scale > 0))
    else:
        assert eqx.filter_eval_shape(net, jnp.zeros(net.event_shape)).shape == ()


@pytest.mark.parametrize("shape", [(28, 28), (32, 16), (12, 8, 2)])
def test_image_sizes(shape):
    def run(key):
        image = arch.ConvDecoder(2, shape, channels=(2, 2), key=key)(jnp.zeros(2))
        return image, arch.ConvEncoder(shape, 2, channels=(2, 2), key=key)(image)

    image, (loc, _) = jax.eval_shape(run, KEY)
    assert image.shape == shape
    assert loc.shape == (2,)


def test_blocks_agree_with_lax_convolutions():
    # The reference is lax.conv with kernel 4, stride 2, padding 1, and its transpose.
    def convolve(image, kernel):
        return lax.conv_general_dilated(
            image[None],
            kernel,
            (2, 2),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0]

    rng = np.random.default_rng(0)
    down = DownBlock(3, 5, key=KEY)
    x = jnp.asarray(rng.normal(size=(6, 8, 3)), jnp.float32)
    np.testing.assert_allclose(down(x), convolve(x, down.weight), atol=1e-5)

    up = UpBlock(3, 5, key=KEY)
    kernel = up.weight.transpose(1, 2, 3, 0)
    transpose = jax.linear_transpose(lambda y: convolve(y, kernel), jnp.zeros((12, 16, 5)))
    np.testing.assert_allclose(up(x), transpose(x)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "options"), [(SplineCouplingFlow, {"knots": 4}), (AffineCouplingFlow, {"bound": 0.4})]
)
def test_coupling_flow(make, options):
    flow = make((2, 2), cond_dim=3, layers=2, width=6, loc=1.0, scale=2.0, key=KEY, **options)
    assert isinstance(flow, AbstractTransformed)
    assert (flow.shape, flow.cond_shape) == ((2, 2), (3,))
    config = json.loads(json.dumps(flow.config))
    again = arch.build(make.__name__, config, key=KEY)
    arrays, others = eqx.filter(flow, eqx.is_array), eqx.filter(again, eqx.is_array)
    assert [a.shape for a in jax.tree.leaves(arrays)] == [a.shape for a in jax.tree.leaves(others)]
    # The reference density uses the bijection's full Jacobian.
    x, c = jnp.asarray([[0.5, 1.0], [3.0, -1.0]]), jnp.asarray([0.3, -0.2, 1.0])

    @jax.jit
    def both(x, c):
        def inverse(x):
            return flow.bijection.inverse(x.reshape(2, 2), c).ravel()

        base = jnp.sum(-0.5 * inverse(x.ravel()) ** 2 - 0.5 * jnp.log(2 * jnp.pi))
        log_det = jnp.linalg.slogdet(jax.jacobian(inverse)(x.ravel()))[1]
        return flow.log_prob(x, c), base + log_det

    got, expected = both(x, c)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


ERRORS = {
    "unknown name": (lambda: arch.build("Transformer", {}), "like="),
    "foreign config": (lambda: arch.build("MLPCritic", {"size": 3}), "Pass the `config`"),
    "activation as a function": (
        lambda: arch.MLPDecoder(2, (3,), activation=jax.nn.relu, key=KEY),
        "cannot be stored",
    ),
    "unknown activation": (
        lambda: arch.MLPEncoder((3,), 2, activation="swosh", key=KEY),
        "expected a name among relu",
    ),
    "zero latents": (lambda: arch.MLPDecoder(0, (3,), key=KEY), "positive sizes"),
    "odd image": (lambda: arch.ConvDecoder(2, (28, 30), key=KEY), "fewer channels entries"),
    "vector for an image": (lambda: arch.ConvEncoder((28,), 2, key=KEY), "MLP architectures"),
    "scalar coupling flow": (lambda: SplineCouplingFlow(1, key=KEY), "RationalQuadraticSpline"),
    "bound of zero": (lambda: AffineCouplingFlow(2, bound=0.0, key=KEY), "usual value is 0.5"),
    "condition missing": (lambda: NETS["mlp_decoder"](KEY)(jnp.zeros(3)), "condition_size"),
    "condition superfluous": (
        lambda: NETS["conv_decoder"](KEY)(jnp.zeros(3), jnp.zeros(1)),
        "condition_size",
    ),
    "condition of another size": (
        lambda: NETS["mlp_decoder"](KEY)(jnp.zeros(3), jnp.zeros(4)),
        "one unbatched condition",
    ),
    "name already registered": (
        lambda: arch.register(type("MLPCritic", (), {"__module__": "elsewhere"})),
        "Rename",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    act, remedy = ERRORS[name]
    with pytest.raises(ValueError, match=remedy):
        act()
