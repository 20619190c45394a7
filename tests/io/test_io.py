"""Files hold priors bit for bit, and load by themselves or with like=."""

import contextlib
import copy
import json
import math

import distrax
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import safetensors
import safetensors.numpy
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow
from numpyro.distributions import constraints, transforms
from tiers import tiered

from numpyro_genprior import FlowPrior, GANPrior, GaussianFieldPrior, GaussianPrior, Prior, VAEPrior
from numpyro_genprior import io as ngp_io
from numpyro_genprior.flows.architectures import SplineCouplingFlow
from numpyro_genprior.io import load, read_header, rebuild, save
from numpyro_genprior.networks import Frozen, from_haiku
from numpyro_genprior.networks.architectures import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

KEY = jax.random.key(3)


def mlp(key=KEY, latent=3, event=(2, 2), **kwargs):
    return MLPDecoder(latent, event, hidden=(4,), key=key, **kwargs)


def flow(key=KEY, **kwargs):
    return SplineCouplingFlow(3, layers=2, knots=3, width=4, key=key, **kwargs)


def conv_vae(key):
    decoder = ConvDecoder(2, (4, 4), channels=(3,), key=key)
    encoder = ConvEncoder((4, 4), 2, channels=(3,), key=key)
    return VAEPrior(decoder, 2, scale=jnp.full((4, 4), 0.3), encoder=encoder)


def gan(key, latent=3, **kwargs):
    return GANPrior(mlp(key), latent, **kwargs)


# Priors on built-in parts: their files load without a template.
ALONE = {
    "gan": gan,
    "gan bounded": lambda key: gan(key, support=constraints.unit_interval),
    "gan interval": lambda key: gan(key, support=constraints.interval(-0.5, 1.5)),
    "gan number": lambda key: gan(key, dist.Normal(0.1, 2.0).expand([3]).to_event(1)),
    "gan uniform": lambda key: gan(key, dist.Uniform(-jnp.ones(3), 2.0).to_event(1)),
    "gan student": lambda key: gan(key, dist.StudentT(5.0, 0.1, 1.0).expand([3]).to_event(1)),
    "gan correlated": lambda key: gan(
        key, dist.MultivariateNormal(jnp.ones(3), jnp.eye(3) + 0.5 * jnp.ones((3, 3)))
    ),
    "gan labels": lambda key: GANPrior(
        mlp(key, condition_size=1), 3, condition=jnp.array([[1], [4]]), condition_shape=(1,)
    ),
    "vae conv": conv_vae,
    "vae condition": lambda key: VAEPrior(
        mlp(key, condition_size=2),
        3,
        scale=0.1,
        encoder=MLPEncoder((2, 2), 3, hidden=(4,), key=key),
        condition=jnp.array([0.5, -1.0]),
    ),
    "vae on a flow": lambda key: VAEPrior(mlp(key), FlowPrior(flow(key)), scale=0.1),
    "flow": lambda key: FlowPrior(flow(key)),
    "flow condition": lambda key: FlowPrior(
        flow(key, cond_dim=2), condition=jax.random.normal(key, (4, 2))
    ),
    "gaussian": lambda key: GaussianPrior(
        jax.random.normal(key, (2, 2)), factor=jnp.ones((2, 2, 1)), diagonal=0.5
    ),
    "gaussian of rank 0": lambda key: GaussianPrior(
        jax.random.normal(key, (3,)), factor=jnp.ones((3, 0)), diagonal=0.5, validate_args=True
    ),
    "gan encoder": lambda key: gan(key, encoder=MLPEncoder((2, 2), 3, hidden=(4,), key=key)),
    "own prior with a hook": lambda key: Power(Frozen(mlp(key)), jnp.array(0.3), 3),
    "own latent prior": lambda key: gan(
        key, Power(Frozen(MLPDecoder(3, (3,), key=key)), jnp.ones(3))
    ),
    "field": lambda key: GaussianFieldPrior(
        (4, 6), lambda k: 1 / (0.1 + k**2), loc=jax.random.normal(key)
    ),
}


class Shifted(Prior):
    """A user's own prior, with a number that is no array and a Haiku network."""

    density = "none"
    pytree_data_fields = ("_net", "_shift")
    pytree_aux_fields = ("_power",)

    def __init__(self, net, shift, power=2):
        self._net, self._shift, self._power = net, shift, power
        super().__init__(3)

    def _decode(self, z, condition):
        return self._net(z) ** self._power + self._shift


class Power(Shifted):
    """A user's own prior that says how a file builds it."""

    @classmethod
    def _from_file(cls, stored):
        return cls(stored.network("net"), stored.array("shift"), stored.static("power"))


class Careless(Shifted):
    """It forgets a static field when a file builds it."""

    @classmethod
    def _from_file(cls, stored):
        return cls(stored.network("net"), stored.array("shift"))


class OfAFunction(Power):
    """Its static field is a function, which no file can hold."""

    def _decode(self, z, condition):
        return self._power(self._net(z)) + self._shift


def haiku_net(key):
    f = hk.transform(lambda z: hk.nets.MLP([4, 5])(z))
    return from_haiku(f, f.init(key, jnp.zeros(3)))


def closure(key):
    weights = jax.random.normal(key, (4, 3))
    return lambda z: (weights @ z, jnp.exp(weights @ z))


def permuted(key):
    order = jnp.arange(3)[::-1]
    scale = jnp.exp(jax.random.normal(key, (3,)))
    return transforms.ComposeTransform(
        [transforms.PermuteTransform(order), transforms.AffineTransform(0.5, scale)]
    )


# Priors on parts that only their own code can build: loading needs a template.
WITH_LIKE = {
    "equinox": lambda key: GANPrior(eqx.nn.MLP(3, 4, 5, 1, activation=jnp.tanh, key=key), 3),
    "haiku": lambda key: GANPrior(haiku_net(key), 3),
    "closure": lambda key: VAEPrior(closure(key), 3, scale=None),
    "function": lambda key: GANPrior(lambda z: jnp.tanh(z), 3),  # another object every time
    "flowjax": lambda key: FlowPrior(
        coupling_flow(key, base_dist=Normal(jnp.zeros(2)), cond_dim=1, flow_layers=1, nn_width=3),
        condition=jax.random.normal(key, (1,)),
    ),
    "distrax": lambda key: FlowPrior(
        distrax.ScalarAffine(jnp.zeros(3), jnp.exp(jax.random.normal(key, (3,)))),
        latent=3,
        support=constraints.real,
    ),
    "transform": lambda key: FlowPrior(permuted(key), latent=3, support=constraints.real),
    "own prior": lambda key: Shifted(haiku_net(key), jax.random.normal(key, (5,))),
    "own prior, careless": lambda key: Careless(Frozen(mlp(key)), jax.random.normal(key), 3),
    "own prior of a function": lambda key: OfAFunction(
        Frozen(mlp(key)), jax.random.normal(key), jnp.exp
    ),
    "own latent": lambda key: gan(
        key,
        dist.TransformedDistribution(
            dist.Normal(jnp.zeros(3), 1.0).to_event(1),
            transforms.AffineTransform(0.0, jnp.exp(jax.random.normal(key, (3,)))),
        ),
    ),
    "stacked": lambda key: jax.vmap(gan)(jax.random.split(key, 2)),
}
CASES = {**ALONE, **WITH_LIKE}
SLOW = {"flow condition", "gan correlated", "own latent prior", "vae conv", "vae on a flow"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prior.safetensors"


def assert_same(prior, other):
    assert type(prior) is type(other)
    assert (prior.batch_shape, prior.event_shape) == (other.batch_shape, other.event_shape)
    assert str(prior.support) == str(other.support)
    assert prior.__dict__.get("_validate_args") == other.__dict__.get("_validate_args")
    pairs = zip(jax.tree.leaves(prior), jax.tree.leaves(other), strict=True)
    for a, b in pairs:
        assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_array_equal(jnp.asarray(a), jnp.asarray(b))


@pytest.mark.parametrize("case", tiered(ALONE, slow=SLOW))
def test_loads_by_itself(path, case):
    prior = ALONE[case](KEY)
    save(path, prior)
    loaded = load(str(path))
    assert_same(prior, loaded)
    assert read_header(path)["loads"] == "by itself"
    z = jax.random.normal(jax.random.key(1), prior.latent.event_shape)
    np.testing.assert_array_equal(prior.decode(z), loaded.decode(z))


@pytest.mark.parametrize("case", tiered(CASES, slow=SLOW))
def test_fills_a_template(path, case):
    prior, like = CASES[case](KEY), CASES[case](jax.random.key(4))
    untouched = copy.deepcopy(like)
    rescaled = jax.tree.map(lambda w: 0.5 * w, prior)
    save(path, prior)
    loaded = load(path, like)
    assert_same(prior, loaded)
    assert_same(untouched, like)
    if case in WITH_LIKE:
        assert read_header(path)["loads"] == "with like="
        with pytest.raises(ngp_io.TemplateRequiredError, match="like="):
            load(path)
    # One template, one compiled program: the static parts are equal.
    loaded = load(path, rescaled)
    assert_same(prior, loaded)
    assert jax.tree.structure(loaded) == jax.tree.structure(rescaled)


def test_a_template_allocates_no_weights():
    template = rebuild._template("MLPDecoder", mlp().config)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(template))


def test_integer_arrays_are_kept(path):
    prior = FlowPrior(flow(KEY))
    save(path, prior)
    permutation = [n for n in read_header(path)["arrays"] if "permutation" in n]
    stored = safetensors.numpy.load_file(path)
    assert permutation
    assert all(stored[name].dtype.kind == "i" for name in permutation)
    x = jnp.array([0.5, -1.0, 2.0])
    other = load(path, FlowPrior(flow(jax.random.key(9))))  # other permutations
    np.testing.assert_array_equal(prior.log_prob(x), other.log_prob(x))


def test_two_files_of_an_architecture_share_a_program(path):
    prior = FlowPrior(flow(KEY))
    save(path, prior)
    first = load(path)
    save(path, jax.tree.map(lambda w: 0.5 * w, prior))
    assert jax.tree.structure(first) == jax.tree.structure(load(path))


def test_other_tools_read_the_file(path):
    prior = conv_vae(KEY)
    save(path, prior)
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["numpyro_genprior"])
        np.testing.assert_array_equal(file.get_tensor("scale"), prior.scale)
    assert header == read_header(path)
    assert header["format_version"] == 2
    assert header["prior"]["family"] == "VAEPrior"
    assert header["prior"]["event_shape"] == [4, 4]
    assert header["prior"]["latent"] == {"distribution": "StandardNormal", "shape": [2]}
    assert header["prior"]["networks"]["net"]["architecture"] == "ConvDecoder"
    assert header["prior"]["networks"]["encoder"]["config"]["channels"] == [3]
    assert header["arrays"]["scale"] == "float32[4, 4]"


def test_a_file_is_reproducible(path):
    save(path, conv_vae(KEY))
    first = path.read_bytes()
    save(path, conv_vae(KEY))
    assert path.read_bytes() == first


def test_half_precision_is_kept(path):
    prior = jax.tree.map(lambda w: w.astype(jnp.bfloat16), gan(KEY))
    save(path, prior)
    assert_same(prior, load(path))


@contextlib.contextmanager
def in_32_bits():
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.float64
@pytest.mark.parametrize("case", ["vae conv", "flow", "gaussian", "gan student"])
def test_float64_is_kept(path, case):
    prior = ALONE[case](KEY)
    assert all(jnp.result_type(leaf) == jnp.float64 for leaf in jax.tree.leaves(prior))
    save(path, prior)
    assert_same(prior, load(path))
    with in_32_bits(), pytest.raises(ngp_io.PrecisionError, match="jax_enable_x64"):
        load(path)


@pytest.mark.float64
def test_float32_is_kept_in_64_bit_mode(path):
    with in_32_bits():
        prior = conv_vae(KEY)
        save(path, prior)
    loaded = load(path)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(loaded))
    for a, b in zip(jax.tree.leaves(prior), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_header_is_small(path):
    save(path, conv_vae(KEY))
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert size < 10_000
    assert math.isclose(path.stat().st_size, size, abs_tol=3000)
