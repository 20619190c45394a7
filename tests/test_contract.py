"""The contract of NumPyro, of JAX and of this package, over every case of cases.py.

What `ngp.testing.check_prior` checks is swept check by check, so that a failure names the case and
the check. Gradients and determinants need double precision: test_gradients.py, test_densities.py.
"""

import contextlib
import copy
import functools

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from cases import CASES
from flowjax import bijections as fb
from numpyro.distributions import constraints, transforms
from numpyro.infer import SVI, Trace_ELBO, init_to_uniform
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import initialize_model
from numpyro.optim import Adam

import numpyro_genprior as ngp
from numpyro_genprior.testing import CHECKS, check_prior
from numpyro_genprior.testing.expect import decoded, log_prob_of, sampled

IN_DOUBLE_PRECISION = ("density_against_jacobian", "gradients")


@pytest.fixture(params=CASES.values(), ids=repr, scope="module")
def case(request):
    return request.param


@functools.cache
def made(name, seed=1):
    return CASES[name].make(jax.random.key(seed))


@pytest.fixture
def prior(case):
    with promotion(case):
        yield made(case.name)


def promotion(case):
    return jax.numpy_rank_promotion("allow") if case.promotes else contextlib.nullcontext()


def test_traits(case, prior):
    assert prior.density == case.density
    assert prior.event_shape == case.event_shape
    assert prior.latent.event_shape == case.latent_shape
    assert prior.batch_shape == ()
    assert (prior.condition is not None) == case.conditional
    base = prior.support
    while isinstance(base, dist.constraints.independent):
        base = base.base_constraint
    assert (base in (dist.constraints.real, dist.constraints.real_vector)) != case.bounded


@pytest.mark.parametrize("check", [name for name in CHECKS if name not in IN_DOUBLE_PRECISION])
def test_check(case, prior, check):
    check_prior(prior, checks=[check])


def test_leaves_are_inexact(prior):
    """jax.grad, optimisers and jax.tree.map apply directly to a prior."""
    assert all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(prior))


def test_weights_are_leaves(case, prior):
    leaves = jax.tree.leaves(prior)
    assert bool(leaves) == case.weights
    dead = jax.tree.map(jnp.zeros_like, prior)
    z = jax.random.normal(jax.random.key(0), case.latent_shape)
    if case.weights and case.density != "exact":
        assert np.abs(np.asarray(dead.decode(z))).max() in (
            0.0,
            0.5,
        )  # an output of 0 or sigmoid(0)


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.conditional], ids=repr)
def test_batched_conditions(case, key):
    """Leading dimensions of the condition are the batch, in `given` and at construction."""
    prior = made(case.name)
    one = prior.condition
    many = jnp.stack([one, one - 1, one - 2])
    batch, each = prior.given(many), [prior.given(c) for c in many]
    assert batch.batch_shape == (3,)
    assert batch.condition.dtype == one.dtype
    z = prior.latent.sample(key, (3,))
    rows = jnp.stack([decoded(p, z_) for p, z_ in zip(each, z, strict=True)])
    np.testing.assert_allclose(decoded(batch, z), rows, rtol=2e-5, atol=2e-6)
    assert not np.allclose(rows[1], decoded(prior, z[1]))
    x = sampled(batch, key, (2,))
    assert x.shape == (2, 3, *case.event_shape)
    if case.exact:
        rows = jnp.stack([log_prob_of(p, x[:, i]) for i, p in enumerate(each)], 1)
        np.testing.assert_allclose(log_prob_of(batch, x), rows, rtol=2e-4, atol=1e-4)
    check_prior(batch, checks=["shapes", "plates", "pytree"])


def test_cloudpickle(case, prior, key):
    """A round trip, or a refusal that names `ngp.save`."""
    if not case.pickles:
        with pytest.raises(TypeError, match=r"ngp\.save"):
            cloudpickle.dumps(prior)
        return
    copied = cloudpickle.loads(cloudpickle.dumps(prior))
    z = prior.latent.sample(key)
    np.testing.assert_array_equal(copied.decode(z), prior.decode(z))


def test_two_constructions(case, prior):
    """Two calls of one constructor: the values differ, the leaves have the same shapes."""
    other = made(case.name, 2)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(p)] for p in (prior, other)]
    assert shapes[0] == shapes[1]


def test_support_with_a_bound_for_each_entry(key):
    """Checking a batch needs no rank promotion, with a batch of conditions too.

    NumPyro's own validation promotes ranks.
    """
    low, high = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 5.0, 2.5])
    latent = dist.Uniform(jnp.array(low), jnp.array(high)).to_event(1)
    shift = transforms.AffineTransform(jnp.ones(3), jnp.full(3, 2.0))
    bounds = constraints.interval(jnp.array(1 + 2 * low), jnp.array(1 + 2 * high))
    prior = ngp.FlowPrior(shift, latent=latent, support=bounds, validate_args=False)
    x = 1 + 2 * np.linspace(low - 0.2, high + 0.2, 8).reshape(2, 4, 3)
    inside = ((x > 1 + 2 * low) & (x < 1 + 2 * high)).all(-1)
    expected = np.where(inside, -np.log(2 * (high - low)).sum(), -np.inf)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(x)), expected, rtol=1e-5)
    for i in np.ndindex(2, 4):
        np.testing.assert_allclose(prior.log_prob(jnp.asarray(x[i])), expected[i], rtol=1e-5)
    flow = fb.AdditiveCondition(jnp.sin, (3,), (3,))
    condition = jnp.ones((2, 4, 3))
    prior = ngp.FlowPrior(
        flow, latent=latent, support=bounds, condition=condition, validate_args=False
    )
    x = jax.ShapeDtypeStruct((4, 3), jnp.result_type(float))
    assert jax.eval_shape(prior.log_prob, x).shape == (2, 4)


def observed(prior, y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(jnp.ndim(x)), obs=y)


# One of each kind: each costs seconds of compilation.
STARTED = ["gan_conv", "vae_with_encoder", "vae_over_a_gan", "coupling_conditional", "planar"]
STARTED += ["flow_over_student", "beta", "gamma", "flow_onto_the_unit_square", "numpyro_simplex"]
STARTED += ["distrax_coupling", "gaussian_image", "field_odd"]


STARTED_BY_DEFAULT = {"vae_over_a_gan", "planar"}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(CASES[name], marks=() if name in STARTED_BY_DEFAULT else pytest.mark.slow)
        for name in STARTED
    ],
    ids=repr,
)
def test_inference_starts(case, key):
    """NUTS finds a start with `init_to_uniform`, and SVI takes finite steps."""
    prior = made(case.name)
    model = ngp.latent(observed, explicit=case.one_way)
    y = prior.sample(jax.random.fold_in(key, 1))
    info = initialize_model(
        key, model, model_args=(prior, y), dynamic_args=True, init_strategy=init_to_uniform
    )
    assert np.isfinite(info.param_info.potential_energy)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(info.param_info.z_grad))
    svi = SVI(model, AutoNormal(model), Adam(1e-3), Trace_ELBO())
    with jax.numpy_rank_promotion("allow"):  # AutoNormal's own
        state = svi.init(key, prior, y)
        _, loss = svi.update(state, prior, y)
    assert np.isfinite(loss)


def test_deepcopy_shares_nothing(case, prior):
    copied = copy.deepcopy(prior)
    for a, b in zip(jax.tree.leaves(prior), jax.tree.leaves(copied), strict=True):
        if isinstance(a, jax.Array):
            assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()
        np.testing.assert_array_equal(a, b)
