"""Convolutions rewritten to channels-last: the same numbers as JAX's, in the layout fast on CPU."""

import re
import threading
from functools import cache, partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tiers import tiered

import numpyro_genprior as ngp
from numpyro_genprior.networks import Frozen, channels_last

ON, OFF = True, False
CHEAP = {"xla_backend_optimization_level": 0}  # the same program, compiled faster


def traced(switch, function):
    """`function` compiled under one setting of the switch, never shared with the other."""

    def call(*arguments):
        with channels_last(switch):
            compiled = jax.jit(lambda *args: function(*args), compiler_options=CHEAP)
            return compiled(*arguments)

    return call


def assert_close(actual, expected, tolerance=2e-5):
    jax.tree.map(partial(_assert_leaf, tolerance=tolerance), actual, expected)


def _assert_leaf(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = float(np.abs(np.asarray(expected)).max()) + 1e-30
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), np.asarray(expected, np.float64), atol=tolerance * scale
    )


def layouts(function, *arguments):
    """Dimension labels of the convolutions in the program compiled for the CPU."""
    arguments = jax.device_put(arguments, jax.devices("cpu")[0])
    with channels_last(True):
        text = jax.jit(lambda *args: function(*args)).lower(*arguments).compile().as_text()
    return set(re.findall(r"dim_labels=([^\s,]+)", text))


# ---- one convolution, every transformation -------------------------------------------------------

CASES = {
    "strided": ((1, 4, 5, 6), (8, 4, 3, 2), {"window_strides": (2, 1), "padding": "SAME"}),
    "transposed": (
        (1, 5, 4, 4),
        (4, 5, 4, 4),
        {"padding": ((2, 2), (2, 1)), "lhs_dilation": (2, 2)},
    ),
    "dilated, cropped": (
        (2, 4, 8, 7),
        (4, 4, 2, 3),
        {"window_strides": (1, 2), "padding": ((-1, 1), (2, 0)), "rhs_dilation": (2, 3)},
    ),
    "grouped": ((1, 16, 3, 4), (16, 8, 3, 3), {"padding": "SAME", "feature_group_count": 2}),
    "depthwise": ((1, 4, 3, 3), (8, 1, 2, 2), {"feature_group_count": 4}),
    "batch groups": ((4, 3, 3, 4), (4, 3, 2, 3), {"batch_group_count": 2}),
    "one-dimensional": ((2, 4, 9), (6, 4, 3), {"window_strides": (2,)}),
    "three-dimensional": ((1, 8, 4, 3, 5), (8, 8, 2, 2, 3), {"window_strides": (1, 2, 1)}),
    "odd order": (
        (4, 6, 2, 5),
        (3, 8, 4, 2),
        {"padding": "SAME", "dimension_numbers": ("CHNW", "HOIW", "WCHN")},
    ),
}


def convolve(lhs_shape, rhs_shape, options):
    """A convolution as an unbatched network of two arguments, and such arguments."""
    spatial = len(lhs_shape) - 2
    defaults = {"window_strides": (1,) * spatial, "padding": "VALID"}
    function = partial(lax.conv_general_dilated, **{**defaults, **options})
    lhs, rhs = jax.random.split(jax.random.key(1))
    return function, jax.random.normal(lhs, lhs_shape), jax.random.normal(rhs, rhs_shape)


def batch(x):
    return jnp.stack([x, 2.0 * x, -x], axis=x.ndim // 2)


def everything(network, lhs, rhs):
    """The network under the transformations of JAX, with batch axes in the middle."""

    def pull(lhs, rhs):
        value, back = jax.vjp(network, lhs, rhs)
        return value, back(jnp.sin(value))

    left, right = lhs.ndim // 2, rhs.ndim // 2
    _, linear = jax.linearize(network, lhs, rhs)
    return {
        "gradient, and its own": jax.jvp(pull, (lhs, rhs), (jnp.cos(lhs), rhs)),
        "linearize": linear(jnp.cos(lhs), rhs),
        "weights": jax.vmap(pull, (None, right))(lhs, batch(rhs)),
        "both": jax.vmap(pull, (left, right))(batch(lhs), batch(rhs)),
    }


@pytest.mark.parametrize("name", CASES)
def test_numbers_agree_with_jax(name):
    function, lhs, rhs = convolve(*CASES[name])
    network = Frozen(function)
    ours = traced(ON, partial(everything, network))(lhs, rhs)
    theirs = traced(OFF, partial(everything, function))(lhs, rhs)
    assert_close(ours, theirs)


def test_precision_and_element_types_are_kept():
    function, lhs, rhs = convolve(*CASES["transposed"])
    half = partial(
        function, preferred_element_type=jnp.float32, precision=(lax.Precision.HIGHEST,) * 2
    )
    lhs, rhs = lhs.astype(jnp.bfloat16), rhs.astype(jnp.bfloat16)

    def program(f):
        return lambda a, b: (f(a, b), jax.grad(lambda x: f(x, b).sum())(a))

    assert_close(traced(ON, program(Frozen(half)))(lhs, rhs), program(half)(lhs, rhs), 1e-2)
    with channels_last(True):
        text = jax.jit(lambda a, b: Frozen(half)(a, b)).lower(lhs, rhs).as_text()
    assert "HIGHEST" in text
    assert "bf16" in text


@pytest.mark.float64
@pytest.mark.parametrize("name", ["transposed", "grouped", "odd order"])
def test_gradients_by_finite_differences(name):
    function, lhs, rhs = convolve(*CASES[name])

    def sine(a, b):
        return jnp.sin(Frozen(function)(a, b)).sum()

    value = traced(ON, sine)
    direction = jnp.cos(jnp.arange(lhs.size, dtype=lhs.dtype)).reshape(lhs.shape)
    turned = jnp.sin(jnp.arange(rhs.size, dtype=rhs.dtype)).reshape(rhs.shape)
    step = 1e-5
    forward = value(lhs + step * direction, rhs + step * turned)
    backward = value(lhs - step * direction, rhs - step * turned)
    gradients = traced(ON, jax.grad(sine, (0, 1)))(lhs, rhs)
    along = jnp.vdot(gradients[0], direction) + jnp.vdot(gradients[1], turned)
    np.testing.assert_allclose(along, (forward - backward) / (2 * step), rtol=1e-7)


# ---- networks of other libraries, and functions with control flow --------------------------------


class EquinoxDecoder(eqx.Module):
    first: eqx.nn.ConvTranspose2d
    second: eqx.nn.Conv2d

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.first = eqx.nn.ConvTranspose2d(4, 8, 4, 2, padding=1, key=first)
        self.second = eqx.nn.Conv2d(8, 4, 3, padding=1, groups=1, key=second)

    def __call__(self, z):
        return jnp.tanh(self.second(jax.nn.relu(self.first(z.reshape(4, 4, 4)))))


class LinenDecoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        x = nn.relu(nn.ConvTranspose(8, (4, 4), (2, 2))(z.reshape(4, 4, 4)))
        return nn.Conv(4, (3, 3))(x)


def haiku_decoder(z):
    x = jax.nn.relu(hk.Conv2DTranspose(8, 4, 2, data_format="NCHW")(z.reshape(4, 4, 4)))
    return hk.Conv2D(4, 3, data_format="NCHW")(x)


def nested(z, kernel):
    """Convolutions inside jit, scan, while, cond and checkpoint."""

    def convolution(x, k):
        return jax.nn.relu(lax.conv_general_dilated(x[None], k, (1, 1), "SAME")[0] + 0.1)

    x = jax.jit(convolution)(z.reshape(4, 4, 4), kernel)
    x, _ = lax.scan(lambda x, k: (convolution(x, k), None), x, jnp.stack([kernel, -kernel]))
    x = lax.fori_loop(0, 2, lambda _, x: convolution(x, kernel), x)
    x = lax.cond(z[0] > 0, convolution, lambda x, k: x, x, kernel)
    return jax.checkpoint(convolution)(x, kernel)


@cache
def network(name):
    """A network from flattened images of 4×4 with 4 channels, and a latent for it."""
    z, key = jax.random.normal(jax.random.key(3), (64,)), jax.random.key(4)
    if name == "equinox":
        return EquinoxDecoder(key), z
    if name == "haiku":
        decoder = hk.without_apply_rng(hk.transform(haiku_decoder))
        return ngp.networks.from_haiku(decoder, jax.jit(decoder.init)(key, z)), z
    if name == "flax":
        return ngp.networks.from_flax(LinenDecoder(), jax.jit(LinenDecoder().init)(key, z)), z
    kernel = 0.3 * jax.random.normal(key, (4, 4, 3, 3))
    return lambda z: nested(z, kernel), z


def energy(net, z):
    return (net(z) ** 2).sum()


@pytest.mark.parametrize("name", tiered(["equinox", "haiku", "flax", "nested"], slow={"nested"}))
def test_networks_in_priors(name):
    net, z = network(name)
    prior = ngp.GANPrior(net, 64)

    def descend(prior, z):
        gradient = jax.grad(lambda z: (prior.decode(z) ** 2).sum())
        return lax.fori_loop(0, 3, lambda _, z: z - 0.01 * gradient(z), z)

    def program(prior, z):
        chains = jax.vmap(descend, (None, 0))(prior, jnp.stack([z, -z]))
        return chains, jax.grad(lambda prior: energy(prior.decode, z))(prior)

    assert_close(traced(ON, program)(prior, z), traced(OFF, program)(prior, z), 1e-4)
    assert layouts(descend, prior, z) == {"b01f_01io->b01f"}


def test_eager_gradients():
    function, lhs, rhs = convolve(*CASES["transposed"])
    net = Frozen(partial(function, rhs=rhs))
    results = []
    for switch in (ON, OFF):
        with channels_last(switch):
            forward = jax.jvp(partial(energy, net), (lhs,), (lhs,))
            results.append((net(lhs), jax.grad(energy)(net, lhs), forward))
    assert_close(*results)


def test_custom_derivative_rules_are_kept():
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 3))

    def plain(x):
        return lax.conv_general_dilated(x.reshape(1, 4, 2, 2), kernel, (1, 1), "SAME")

    def program(net):
        return lambda z: (net(z), jax.grad(lambda z: net(z).sum())(z))

    forward, backward = jax.custom_jvp(plain), jax.custom_vjp(plain)
    forward.defjvp(lambda x, t: (plain(*x), 2.0 * plain(*t)))
    backward.defvjp(lambda x: (plain(x), None), lambda _, g: (3.0 * g.reshape(16),))
    z = jnp.arange(16.0)
    for net in (forward, backward):
        frozen = Frozen(lambda z, net=net: net(z))
        assert_close(traced(ON, program(frozen))(z), program(net)(z))


# ---- what stays unchanged ------------------------------------------------------------------------


def test_networks_without_convolutions_are_unchanged():
    net = Frozen(eqx.nn.MLP(3, 5, 8, 2, key=jax.random.key(0)))
    jaxprs = []
    for switch in (ON, OFF):
        with channels_last(switch):
            jaxprs.append(str(jax.make_jaxpr(jax.grad(energy))(net, jnp.ones(3))))
    assert re.sub("0x[0-9a-f]+", "", jaxprs[0]) == re.sub("0x[0-9a-f]+", "", jaxprs[1])


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_accelerators_get_the_plain_program(platform):
    net, z = network("nested")
    net = Frozen(net)
    texts = []
    for switch in (ON, OFF):
        with channels_last(switch):
            gradient = jax.jit(jax.grad(partial(energy, net)))
            text = gradient.trace(z).lower(lowering_platforms=(platform,)).as_text()
            texts.append(re.sub(r"(@\w+?)_\d+\b", r"\1", text))  # JAX numbers its functions
    assert texts[0] == texts[1]


def test_export_for_two_platforms():
    net, z = network("equinox")
    net = Frozen(net)
    with channels_last(True):
        gradient = jax.jit(jax.grad(partial(energy, net)))
        exported = jax.export.export(gradient, platforms=("cpu", "cuda"))(z)
    with channels_last(False):
        assert_close(exported.call(z), jax.grad(partial(energy, net))(z))


def test_no_more_operations():
    net, z = network("equinox")
    flops = []
    for switch in (ON, OFF):
        with channels_last(switch):
            gradient = jax.jit(jax.grad(partial(energy, Frozen(net))))
            analysis = gradient.lower(z).compile().cost_analysis()
            flops.append((analysis[0] if isinstance(analysis, list) else analysis)["flops"])
    assert flops[0] == flops[1]


@pytest.mark.float64
def test_double_precision_is_unchanged():
    net, z = network("equinox")
    net = Frozen(net)

    def in_loop(z):
        return lax.fori_loop(0, 2, lambda _, z: z + net(z).sum(), z)

    assert "b01f_01io->b01f" not in layouts(in_loop, z)


# ---- the switch ----------------------------------------------------------------------------------


def test_the_switch():
    net, z = network("equinox")
    net = Frozen(net)

    def used():
        return "channels_last_convolution" in str(jax.make_jaxpr(lambda z: net(z))(z))

    assert used()
    with channels_last(False):
        assert not used()
        with channels_last(True):
            assert used()
        assert not used()
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(used()))
        thread.start()
        thread.join()
        assert elsewhere == [True]
    assert used()
    setting = channels_last(False)
    assert not used()
    setting.__exit__()
    assert used()


def test_the_switch_refuses_other_types():
    with pytest.raises(TypeError, match=r"channels_last\(True\)"):
        channels_last("off")
    net, z = network("equinox")
    assert "channels_last_convolution" in str(jax.make_jaxpr(Frozen(net))(z))


def test_a_network_that_cannot_be_traced_raises_its_own_error():
    def broken(z):
        raise RuntimeError("of the network")

    with pytest.raises(RuntimeError, match="of the network"):
        jax.jit(lambda z: Frozen(broken)(z))(jnp.ones(2))
