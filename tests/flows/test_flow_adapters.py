"""Networks inside Distrax and NumPyro flows are leaves, wherever the flow keeps them."""

import copy
import functools
import subprocess
import sys

import cloudpickle
import distrax
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax import bijections
from numpyro.distributions import transforms
from numpyro.distributions.flows import (
    BlockNeuralAutoregressiveTransform,
    InverseAutoregressiveTransform,
)
from numpyro.infer import SVI, Trace_ELBO
from numpyro.nn import AutoregressiveNN, BlockNeuralAutoregressiveNN
from numpyro.optim import Adam

import numpyro_genprior as ngp
from numpyro_genprior.networks import Frozen

REAL = dist.constraints.real
X = jnp.array([0.3, -1.2, 0.7])


@pytest.fixture(autouse=True, scope="module")
def _rank_promotion():
    """NumPyro's networks promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


def affine(parameters):
    return distrax.ScalarAffine(parameters[..., 0], log_scale=jnp.tanh(parameters[..., 1]))


def masked(key, wrap=lambda function: function):
    """A coupling whose conditioner is a function that closes over a network."""
    net = eqx.nn.MLP(3, 6, 4, 1, activation=jnp.tanh, key=key)
    mask = jnp.array([True, False, True])
    return distrax.MaskedCoupling(mask, wrap(lambda x: net(x).reshape(3, 2)), affine)


def coupling(key):
    return masked(key)


def coupling_under_jit(key):
    return masked(key, jax.jit)


def split(key):
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 4])(x).reshape(2, 2)))
    conditioner = functools.partial(net.apply, net.init(key, jnp.zeros(1)))
    return distrax.SplitCoupling(1, 1, conditioner, affine)


def nested(key):
    first, second = jax.random.split(key)
    shift = distrax.Block(distrax.ScalarAffine(jnp.ones(3)), 1)
    return distrax.Inverse(distrax.Chain([masked(first), shift, distrax.Inverse(masked(second))]))


def autoregressive(key):
    init, apply = AutoregressiveNN(3, [4], skip_connections=True, permutation=jnp.arange(3))
    return InverseAutoregressiveTransform(functools.partial(apply, init(key, (3,))[1]))


def composed(key):
    init, apply = AutoregressiveNN(3, [4])
    weights = [init(k, (3,))[1] for k in jax.random.split(key)]
    layers = [InverseAutoregressiveTransform(lambda x, w=w: apply(w, x)) for w in weights]
    flip = transforms.PermuteTransform(jnp.arange(3)[::-1])
    return transforms.ComposeTransform([layers[0], flip, layers[1].inv]).inv


def block_autoregressive(key):
    """The masks in the closure of its function are not weights, and stay concrete."""
    init, apply = BlockNeuralAutoregressiveNN(3, [2], residual="gated")
    return BlockNeuralAutoregressiveTransform(functools.partial(apply, init(key, (3,))[1]))


# Each flow and its number of weights, counted by hand.
MLP = 4 * 3 + 4 + 6 * 4 + 6
MADE = 3 * 4 + 4 + 4 * 6 + 6
FLOWS = {
    coupling: MLP,
    coupling_under_jit: MLP,
    split: 1 * 4 + 4 + 4 * 4 + 4,
    nested: 2 * MLP + 3,
    autoregressive: MADE + 3 * 6,
    composed: 2 * MADE,
    block_autoregressive: (3 * 6 + 6 + 6) + (6 * 3 + 3 + 3) + 1,
}


@functools.cache
def made(make, seed=1):
    return ngp.FlowPrior(make(jax.random.key(seed)), latent=3, support=REAL)


@jax.jit
def value(prior, x):
    """A number that depends on all weights of the flow."""
    one_way = isinstance(prior.flow, BlockNeuralAutoregressiveTransform)
    return jnp.sum(prior.decode(x) ** 2) if one_way else prior.log_prob(x)


@pytest.fixture(params=FLOWS, ids=lambda make: make.__name__, scope="module")
def make(request):
    return request.param


@pytest.mark.slow
def test_weights_are_arguments(make):
    """All weights are leaves, nothing else is, and one compiled program serves all values of them.

    The gradient with respect to the weights agrees with central differences in a random direction.
    """
    prior = made(make)
    assert sum(leaf.size for leaf in jax.tree.leaves(prior)) == FLOWS[make]
    traces = []

    @jax.jit
    def gradient(prior, x):
        traces.append(1)
        return jax.value_and_grad(value)(prior, x)

    leaves, treedef = jax.tree.flatten(prior)
    keys, h = jax.random.split(jax.random.key(2), len(leaves)), 3e-3
    direction = [jax.random.normal(k, w.shape) for k, w in zip(keys, leaves, strict=True)]

    def value_at(t):
        moved = [w + t * d for w, d in zip(leaves, direction, strict=True)]
        return gradient(jax.tree.unflatten(treedef, moved), X)[0]

    _, gradients = gradient(prior, X)
    difference = (value_at(h) - value_at(-h)) / (2 * h)
    assert gradient(copy.deepcopy(prior), X)[0] == value_at(0.0)
    assert len(traces) == 1
    assert all(np.any(np.asarray(g)) for g in jax.tree.leaves(gradients))
    slope = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(gradients), direction, strict=True))
    np.testing.assert_allclose(slope, difference, rtol=2e-2, atol=2e-3)


def test_nan_is_refused(make):
    nan_flow = jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), Frozen(made(make)._flow)).net
    with pytest.raises(ValueError, match=r"Load the weights again or train again"):
        ngp.FlowPrior(nan_flow, latent=3, support=REAL)


@pytest.mark.parametrize("make", [make for make in FLOWS if make is not block_autoregressive])
def test_param_trains(make):
    """One step of Adam moves each weight by the learning rate, except those behind a mask.

    Only for flows that have an inverse, and so a density to train with.
    """

    def model(prior, x):
        numpyro.sample("x", ngp.param("prior", prior), obs=x)

    svi = SVI(model, lambda prior, x: None, Adam(0.1), Trace_ELBO())
    before = svi.init(jax.random.key(0), made(make), X)
    after, _ = jax.jit(svi.update)(before, made(make), X)
    pairs = zip(*(jax.tree.leaves(svi.get_params(s)) for s in (before, after)), strict=True)
    moved = [np.abs(np.asarray(a - b)) for a, b in pairs]
    assert sum(m.size for m in moved) == FLOWS[make]
    for m in moved:
        assert m.any()
        np.testing.assert_allclose(m[m > 0], 0.1, rtol=1e-2)


def test_copies(make, tmp_path):
    """Copies through a file (with a skeleton) and cloudpickle agree, as do priors under vmap."""
    prior = made(make)
    half = jax.tree.map(lambda w: 0.5 * w, prior)
    ngp.save(tmp_path / "flow.safetensors", prior)
    loaded = ngp.load(tmp_path / "flow.safetensors", like=half)
    assert jax.tree.structure(loaded) == jax.tree.structure(prior)
    pickled = cloudpickle.loads(cloudpickle.dumps(prior))
    for other in (loaded, pickled):
        np.testing.assert_array_equal(value(other, X), value(prior, X))
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), prior, half)
    both = jax.vmap(value, (0, None))(stacked, X)
    np.testing.assert_allclose(both, [value(prior, X), value(half, X)], rtol=1e-5)


def test_flows_keep_their_class():
    """`prior.flow` has the class of the given flow, and makes a prior of the same structure."""
    for make, kind in (
        (coupling, distrax.MaskedCoupling),
        (autoregressive, InverseAutoregressiveTransform),
    ):
        prior = made(make)
        assert isinstance(prior.flow, kind)
        again = ngp.FlowPrior(prior.flow, latent=3, support=REAL)
        assert jax.tree.structure(again) == jax.tree.structure(prior)
    x = jnp.stack([X, -X])
    flow = autoregressive(jax.random.key(1))
    np.testing.assert_allclose(made(autoregressive).flow(x), flow(x), rtol=1e-6)


def test_cached_quantities_follow_changed_weights():
    """Distrax keeps log determinants and inverses as leaves beside the weights.

    Whatever values the leaves take, the flow is a bijection and its density that of its events.
    """
    matrix = jnp.eye(3) + 0.1
    layers = [
        distrax.Block(distrax.ScalarAffine(jnp.zeros(3), jnp.array([2.0, -1.0, 0.5])), 1),
        distrax.DiagLinear(jnp.array([2.0, 1.0, 0.5])),
        distrax.TriangularLinear(matrix),
        distrax.UnconstrainedAffine(matrix, jnp.zeros(3)),
        distrax.LowerUpperTriangularAffine(matrix, jnp.zeros(3)),
        distrax.DiagPlusLowRankLinear(jnp.ones(3), jnp.ones((3, 1)), jnp.ones((3, 1))),
    ]
    cholesky = transforms.LowerCholeskyAffine(jnp.zeros(3), matrix)
    for flow in (distrax.Chain(layers), transforms.ComposeTransform([cholesky, cholesky.inv])):
        prior = ngp.FlowPrior(flow, latent=3, support=REAL)
        leaves, treedef = jax.tree.flatten(prior)
        moved = [leaf + 0.02 * (i % 7) for i, leaf in enumerate(leaves)]
        trained = jax.tree.unflatten(treedef, moved)
        slope = jax.jit(lambda prior: jax.jacobian(prior.decode)(X))(trained)
        expected = dist.Normal(0.0, 1.0).log_prob(X).sum() - jnp.linalg.slogdet(slope)[1]
        got = jax.jit(lambda prior: prior.log_prob(prior.decode(X)))(trained)
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    x = trained.decode(X)
    np.testing.assert_allclose(trained.flow.inv(x), X, rtol=1e-4, atol=1e-5)


def test_gradient_of_a_numerical_inverse_with_respect_to_the_condition():
    """x = z - sin(c), by an inverter without derivatives; FlowJAX's own class raises here."""

    def inverter(bijection, y, condition=None):
        return jax.lax.stop_gradient(bijection.inverse(y, condition))

    numerical = bijections.NumericalInverse(
        bijections.AdditiveCondition(jnp.sin, (3,), (3,)), inverter
    )
    c, (z, x) = jnp.array([0.5, 0.0, -2.0]), (X, X)
    prior = ngp.FlowPrior(bijections.Invert(numerical), condition=c)
    slope = jax.jacobian(lambda c: prior.given(c).decode(z))(c)
    np.testing.assert_allclose(slope, -jnp.diag(jnp.cos(c)), atol=1e-6)
    prior = ngp.FlowPrior(numerical, condition=c)
    slope = jax.grad(lambda c: prior.given(c).log_prob(x))(c)
    np.testing.assert_allclose(slope, (x - jnp.sin(c)) * jnp.cos(c), rtol=1e-5)


def test_arrays_of_a_lambda_are_constants():
    """Its directions close over one array, which as two leaves could be trained apart."""
    shift = jnp.array([1.0, 2.0, 3.0])
    flow = distrax.Lambda(
        forward=lambda x: x + shift,
        inverse=lambda y: y - shift,
        forward_log_det_jacobian=lambda x: jnp.zeros(()),
        inverse_log_det_jacobian=lambda y: jnp.zeros(()),
        event_ndims_in=1,
    )
    prior = ngp.FlowPrior(distrax.Chain([flow, masked(jax.random.key(0))]), latent=3, support=REAL)
    assert sum(leaf.size for leaf in jax.tree.leaves(prior)) == MLP


# ---- functions -----------------------------------------------------------------------------------

WEIGHTS = jnp.ones((3, 2))


class Linear:
    """A user-defined pytree, called by a method."""

    def __init__(self, weights):
        self.weights = weights

    def apply(self, z):
        return self.weights @ z


jax.tree_util.register_pytree_node(
    Linear, lambda node: ((node.weights,), None), lambda _, children: Linear(*children)
)


def functions():
    weights = jnp.ones((3, 2))

    def plain(z):
        return weights @ z

    def by_keyword(z, *, w=weights):
        return w @ z

    def by_default(z, w=weights):
        return w @ z

    def switched(function, z, *, twice):
        return function(z) * (2 if twice else 1)

    return {
        "cell": plain,
        "global": lambda z: WEIGHTS @ z,
        "default": by_default,
        "keyword default": by_keyword,
        "jit": jax.jit(plain),
        "checkpoint": jax.checkpoint(plain),
        "checkpoint under jit": jax.jit(jax.checkpoint(lambda z: plain(z))),
        "partial of weights": functools.partial(lambda w, z: w @ z, weights),
        "partial of a switch": functools.partial(switched, plain, twice=False),
        "method": Linear(weights).apply,
        "filter_jit": eqx.filter_jit(plain),
    }


@pytest.mark.parametrize("name", functions())
def test_arrays_in_functions_are_leaves(name):
    net = Frozen(functions()[name])
    assert [leaf.shape for leaf in jax.tree.leaves(net)] == [(3, 2)]
    z = jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(net(z), [3.0, 3.0, 3.0])
    doubled = jax.tree.map(lambda w: 2 * w, net)
    np.testing.assert_array_equal(jax.jit(lambda net, z: net(z))(doubled, z), [6.0, 6.0, 6.0])
    if "checkpoint" in name:  # JAX's wrapper holds caches
        with pytest.raises(TypeError, match=r"ngp\.save"):
            cloudpickle.dumps(doubled)
        return
    copied = cloudpickle.loads(cloudpickle.dumps(doubled))
    np.testing.assert_array_equal(copied(z), [6.0, 6.0, 6.0])
    assert len(jax.tree.leaves(copied)) == 1


def test_constants_of_libraries_are_not_weights():
    """Globals of the modules of JAX are not searched for arrays."""
    from jax.scipy.special import i0e, ndtri  # tables of coefficients

    assert not jax.tree.leaves(Frozen(lambda z: i0e(z) + ndtri(z)))


def test_functions_that_call_each_other():
    weights = jnp.ones(2)

    def even(n, z):
        return z if n == 0 else odd(n - 1, z)

    def odd(n, z):
        return weights * even(n - 1, z)

    net = Frozen(lambda z: even(2, z))
    np.testing.assert_array_equal(net(jnp.arange(2.0)), [0.0, 1.0])
    assert jax.tree.leaves(net)


@pytest.mark.slow
def test_cloudpickle_into_another_process(tmp_path):
    """The pickle of a closure holds the globals that it uses, and no others."""
    weights = jnp.arange(6.0).reshape(3, 2)
    held = cloudpickle.dumps(ngp.GANPrior(lambda z: jnp.tanh(weights @ z), 2))
    assert b"test_gradients" not in held
    (tmp_path / "prior.pkl").write_bytes(held)
    code = (
        "import sys, pickle, jax; prior = pickle.load(open(sys.argv[1], 'rb'));"
        "print(len(jax.tree.leaves(prior)), prior.decode(jax.numpy.ones(2)).sum())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "prior.pkl")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] == "1"
    np.testing.assert_allclose(float(printed[1]), np.tanh([1.0, 5.0, 9.0]).sum(), rtol=1e-6)
