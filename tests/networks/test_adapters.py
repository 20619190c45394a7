"""Networks from Haiku and Flax agree with the libraries' own apply."""

import copy
import sys

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from numpyro_genprior.networks import Frozen, from_flax, from_haiku, from_nnx

Z = jnp.array([0.3, -1.2, 0.7])
C = jnp.array([0.5, 2.0])


def haiku_mlp():
    f = hk.transform(lambda z: hk.nets.MLP([4, 5], activation=jnp.tanh)(z))
    return f, f.init(jax.random.key(1), Z)


def haiku_batch_norm():
    def g(z, is_training):
        h = hk.Linear(4)(z)
        h = hk.BatchNorm(True, True, 0.9)(h, is_training=is_training)
        return jnp.tanh(h)

    f = hk.transform_with_state(g)
    params, state = f.init(jax.random.key(1), Z[None], True)
    batch = jax.random.normal(jax.random.key(2), (32, 3))
    for _ in range(3):  # statistics other than the initial ones
        _, state = f.apply(params, state, None, 1.0 + 2.0 * batch, True)
    return f, params, state


class LinenVAE(nn.Module):
    sizes: list[int]

    @nn.compact
    def decode(self, z, c=None):
        h = z if c is None else jnp.concatenate([z, c])
        h = nn.tanh(nn.Dense(self.sizes[0])(h))
        return nn.Dense(self.sizes[1])(h), nn.softplus(nn.Dense(self.sizes[1])(h))

    def __call__(self, z):
        return self.decode(z)[0]


class LinenBatchNorm(nn.Module):
    @nn.compact
    def __call__(self, z, train):
        h = nn.Dense(4)(z)
        h = nn.BatchNorm(use_running_average=not train)(h)
        return nn.Dropout(0.5, deterministic=not train)(nn.tanh(h))


def linen_batch_norm():
    module = LinenBatchNorm()
    batch = 1.0 + 2.0 * jax.random.normal(jax.random.key(2), (32, 3))
    variables = module.init(jax.random.key(1), batch, False)
    for _ in range(3):
        rngs = {"dropout": jax.random.key(3)}
        _, new = module.apply(variables, batch, True, rngs=rngs, mutable=["batch_stats"])
        variables = {"params": variables["params"], **new}
    return module, variables


class NNXNet(nnx.Module):
    def __init__(self, rngs, noisy=False):
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.rngs, self.noisy = rngs, noisy

    def __call__(self, z):
        h = self.dropout(nnx.relu(self.norm(self.linear(z))))
        return h + jax.random.normal(self.rngs.params(), (4,)) if self.noisy else h

    def decode(self, z, c):
        return self(z) * c[0], jnp.exp(self(z) + c[1])


def nnx_net(seed=0):
    net = NNXNet(nnx.Rngs(seed))
    net.train()
    for _ in range(3):
        net(1.0 + 2.0 * jax.random.normal(jax.random.key(2), (32, 3)))
    return net


def adapters():
    """Name -> (adapter, the library's own function of one latent)."""
    f, params = haiku_mlp()
    g, g_params, state = haiku_batch_norm()
    vae = LinenVAE([4, 5])
    vae_variables = vae.init(jax.random.key(1), Z)
    norm, variables = linen_batch_norm()
    net = nnx_net()
    evaluated = nnx.clone(net)
    evaluated.eval()
    bare = hk.without_apply_rng(f)
    g_bare = hk.without_apply_rng(g)
    return {
        "haiku": (from_haiku(f, params), lambda z: f.apply(params, None, z)),
        "haiku-no-rng": (from_haiku(bare, params), lambda z: bare.apply(params, z)),
        "haiku-state": (
            from_haiku(g, g_params, state, batched=True, is_training=False),
            lambda z: g.apply(g_params, state, None, z[None], False)[0][0],
        ),
        "haiku-state-no-rng": (
            from_haiku(g_bare, g_params, state, batched=True, is_training=False),
            lambda z: g.apply(g_params, state, None, z[None], False)[0][0],
        ),
        "linen": (from_flax(vae, vae_variables), lambda z: vae.apply(vae_variables, z)),
        "linen-batch-stats": (
            from_flax(norm, variables, train=False),
            lambda z: norm.apply(variables, z, False),
        ),
        "linen-batched": (
            from_flax(norm, variables, batched=True, train=False),
            lambda z: norm.apply(variables, z[None], False)[0],
        ),
        "nnx": (from_nnx(net), evaluated),
    }


NAMES = [
    "haiku",
    "haiku-no-rng",
    "haiku-state",
    "haiku-state-no-rng",
    "linen",
    "linen-batch-stats",
    "linen-batched",
    "nnx",
]


@pytest.fixture(scope="module")
def cases():
    return adapters()


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_library(cases, name):
    adapter, apply = cases[name]
    np.testing.assert_allclose(adapter(Z), apply(Z), rtol=1e-6)
    zs = jax.random.normal(jax.random.key(5), (2, 3))
    np.testing.assert_allclose(
        jax.jit(lambda net, zs: jax.vmap(net)(zs))(Frozen(adapter), zs),
        np.stack([apply(z) for z in zs]),
        rtol=2e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", NAMES)
def test_is_a_frozen_pytree(cases, name):
    adapter, _ = cases[name]
    traces = []

    @jax.jit
    def energy(net, z):
        traces.append(net)
        return jnp.sum(net(z) ** 2)

    net = Frozen(adapter)
    other = jax.tree.map(lambda w: 0.5 * w, net)
    doubled = Frozen(jax.tree.map(lambda w: w * 2 if w.dtype.kind == "f" else w, adapter))
    values = [float(energy(n, Z)) for n in (net, other, doubled, copy.deepcopy(net))]
    assert len(traces) == 1
    assert values[0] == values[3] != values[1]
    # The directional derivative along the weights, by differences in float32: a loose tolerance.
    gradient = jax.grad(energy)(net, Z)
    leaves, treedef = jax.tree.flatten(net)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    slope = sum(jnp.vdot(g, w) for g, w in zip(jax.tree.leaves(gradient), leaves, strict=True))
    step = 1e-2
    up, down = (jax.tree.unflatten(treedef, [w * s for w in leaves]) for s in (1 + step, 1 - step))
    numeric = (energy(up, Z) - energy(down, Z)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=2e-2, atol=1e-4)


def test_modules_built_twice_share_a_trace():
    traces = []

    @jax.jit
    def first(net):
        traces.append(1)
        return net(Z)

    first(Frozen(from_nnx(nnx_net(0))))
    first(Frozen(from_nnx(nnx_net(1))))
    assert len(traces) == 1
    first(Frozen(from_flax(LinenVAE([4, 5]), LinenVAE([4, 5]).init(jax.random.key(1), Z))))
    first(Frozen(from_flax(LinenVAE([4, 5]), LinenVAE([4, 5]).init(jax.random.key(2), Z))))
    assert len(traces) == 2


def test_condition_and_two_outputs():
    vae = LinenVAE([4, 5])
    variables = vae.init(jax.random.key(1), Z, C, method="decode")
    for method in ("decode", LinenVAE.decode):
        net = from_flax(vae, variables, method=method)
        expected = vae.apply(variables, Z, C, method="decode")
        jax.tree.map(np.testing.assert_array_equal, net(Z, C), expected)

    f = hk.transform(lambda z, c: (hk.Linear(4)(z), jnp.exp(hk.Embed(3, 4)(c))))
    params = f.init(jax.random.key(1), Z, jnp.array(2))
    net = from_haiku(f, params)
    jax.tree.map(
        np.testing.assert_array_equal,
        net(Z, jnp.array(2)),
        f.apply(params, None, Z, jnp.array(2)),
    )
    net = from_haiku(f, params, batched=True)
    assert net(Z, jnp.array(2))[1].shape == (4,)

    module = nnx_net()
    evaluated = nnx.clone(module)
    evaluated.eval()
    net = from_nnx(module, method="decode")
    jax.tree.map(np.testing.assert_array_equal, net(Z, C), evaluated.decode(Z, C))


def test_nnx_module_is_copied_and_left_unchanged():
    module = nnx_net()
    adapter = from_nnx(module)
    assert module.dropout.deterministic is False
    before = adapter(Z)
    module.linear.kernel[...] = jnp.zeros((3, 4))
    module(jnp.ones((5, 3)))
    np.testing.assert_array_equal(adapter(Z), before)
    # No random streams among the leaves: plain jax.grad works without Frozen.
    assert len(jax.tree.leaves(jax.grad(lambda n: n(Z).sum())(adapter))) == 6


def test_haiku_discards_a_new_state():
    def f(z):
        count = hk.get_state("count", (), jnp.int32, init=jnp.zeros)
        hk.set_state("count", count + 1)
        return z * (1 + count)

    f = hk.transform_with_state(f)
    params, state = f.init(None, Z)
    net = Frozen(from_haiku(f, params, state))
    np.testing.assert_array_equal(net(Z), Z)
    np.testing.assert_array_equal(net(Z), Z)
    assert jax.tree.leaves(jax.grad(lambda n: n(Z).sum())(net)) == []


def test_haiku_in_training_mode_warns():
    f, params, state = haiku_batch_norm()
    net = from_haiku(f, params, state, batched=True, is_training=True)
    with pytest.warns(UserWarning, match="is_training=False"):
        jax.eval_shape(net, Z)


def test_numpy_weights_are_accepted():
    f, params = haiku_mlp()
    stored = jax.tree.map(np.asarray, params)
    net = from_haiku(f, stored)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(net))
    np.testing.assert_array_equal(net(Z), f.apply(params, None, Z))


@pytest.mark.float64
def test_float64_weights_stay_float64():
    module = nn.Dense(2, param_dtype=jnp.float64)
    variables = module.init(jax.random.key(1), Z)
    net = Frozen(from_flax(module, variables))
    assert net(Z).dtype == jnp.float64
    np.testing.assert_array_equal(net(Z), module.apply(variables, Z))


class LinenDropout(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(4)(z))


def _haiku_dropout():
    f = hk.transform(lambda z: hk.dropout(hk.next_rng_key(), 0.5, z))
    return from_haiku(f, {})(Z)


def _linen_dropout():
    module = LinenDropout()
    rngs = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
    return from_flax(module, module.init(rngs, Z))(Z)


def _linen_training():
    module = nn.BatchNorm(use_running_average=False)
    return from_flax(module, module.init(jax.random.key(0), Z[None]))(Z)


def _nnx_training():
    class Stubborn(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

        def __call__(self, z):
            return self.norm(z, use_running_average=False)

    return from_nnx(Stubborn(), batched=True)(Z)


MISTAKES = {
    "haiku rng": (_haiku_dropout, ValueError, "is_training=False"),
    "linen rng": (_linen_dropout, ValueError, "train=False"),
    "nnx rng": (lambda: from_nnx(NNXNet(nnx.Rngs(0), True))(Z), ValueError, "deterministic=True"),
    "linen training": (_linen_training, ValueError, r"from_flax\(..., train=False\)"),
    "nnx training": (_nnx_training, ValueError, r"module.eval\(\)"),
    "no state": (
        lambda: from_haiku(*haiku_batch_norm()[:2]),
        ValueError,
        r"from_haiku\(f, params, state\)",
    ),
    "needless state": (lambda: from_haiku(*haiku_mlp(), {}), ValueError, "Leave it out"),
    "pair as params": (
        lambda: from_haiku(hk.transform_with_state(lambda z: z), ({}, {}), {}),
        TypeError,
        r"params, state = f.init\(key, latent\)",
    ),
    "state of the wrong type": (
        lambda: from_haiku(hk.transform_with_state(lambda z: z), {}, 3),
        TypeError,
        "`state`.*got int",
    ),
    "params of the wrong type": (
        lambda: from_haiku(haiku_mlp()[0], 3),
        TypeError,
        r"params = f.init\(key, latent\)",
    ),
    "strings among params": (
        lambda: from_haiku(haiku_mlp()[0], {"linear": {"w": "zeros"}}),
        TypeError,
        r"got str at params\['linear'\]\['w'\]",
    ),
    "not transformed": (lambda: from_haiku(lambda z: z, {}), TypeError, r"Pass hk.transform\(f\)"),
    "nnx as linen": (lambda: from_flax(nnx_net(), {}), TypeError, r"from_nnx\(module\)"),
    "linen as nnx": (lambda: from_nnx(nn.Dense(2)), TypeError, r"from_flax\(module, variables\)"),
    "class": (lambda: from_flax(nn.Dense, {}), TypeError, "got the class Dense"),
    "list of variables": (lambda: from_flax(nn.Dense(2), [1]), TypeError, "got list"),
    "flat variables": (
        lambda: from_flax(nn.Dense(2), {"kernel": jnp.ones((3, 2))}),
        TypeError,
        r"trained parameters",
    ),
    "no params collection": (
        lambda: from_flax(LinenVAE([4, 5]), {"Dense_0": {"kernel": Z}})(Z),
        ValueError,
        "Pass all that module.init returns",
    ),
    "unknown method": (lambda: from_nnx(nnx_net(), method="draw"), ValueError, "no method 'draw'"),
    "array switch": (lambda: from_nnx(nnx_net(), mask=Z), TypeError, "`mask` must be hashable"),
    "batch axis lost": (
        lambda: from_haiku(hk.transform(lambda z: jnp.ravel(z)), {}, batched=True)(Z),
        ValueError,
        "Leave out batched=True",
    ),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_mistakes(mistake):
    do, error, match = MISTAKES[mistake]
    with pytest.raises(error, match=match):
        do()


def test_missing_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.setitem(sys.modules, "haiku", None)
    for do, match in (
        (lambda: from_flax(None, {}), r"pip install numpyro_genprior\[flax\]"),
        (lambda: from_nnx(None), r"pip install numpyro_genprior\[flax\]"),
        (lambda: from_haiku(None, {}), "pip install dm-haiku"),
    ):
        with pytest.raises(ImportError, match=match):
            do()
