"""Gradients against finite differences in double precision, over every case."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, select

from numpyro_genprior.testing import directional_derivatives

pytestmark = pytest.mark.float64


# FlowJAX finds one direction of a block neural autoregressive flow by bisection to 1e-5.
ITERATIVE = 2e-2


@pytest.mark.parametrize("case", CASES.values(), ids=repr)
def test_gradients(case):
    """By latent, event, every leaf (weights, scale, condition) and the condition given."""
    promotion = jax.numpy_rank_promotion("allow") if case.promotes else contextlib.nullcontext()
    with promotion:
        prior = case.make(jax.random.key(1))
        derivatives = directional_derivatives(prior, jax.random.key(3))
    expected = {"latent", "event", "condition", "prior"}
    if case.density == "none" or case.one_way or case.simplex:
        expected -= {"event"}
    if not case.conditional or case.integer:
        expected -= {"condition"}
    if not case.weights:
        expected -= {"prior"}
    assert set(derivatives) == expected
    tolerance = ITERATIVE if case.iterative else 1e-6
    for name, (slope, differences) in derivatives.items():
        error = min(abs(slope - d) for d in differences)
        assert error <= tolerance * (1 + abs(slope)), (name, slope, differences)
        assert slope != 0.0 or (case.flat and name == "event")


@pytest.mark.parametrize("case", select(density="exact", one_way=False, iterative=False), ids=repr)
def test_score(case, key):
    """The score is the gradient of log_prob by the event, one event at a time."""
    prior = case.make(jax.random.key(1))
    x = prior.sample(key, (3,))
    score, expected = jax.jit(
        lambda p, x: (p.score(x), jax.grad(lambda x: p.log_prob(x).sum())(x))
    )(prior, x)
    np.testing.assert_allclose(score, expected, rtol=1e-9, atol=1e-9)
    assert jax.eval_shape(prior.score, x[0]).shape == case.event_shape


def test_labels_are_used_and_not_differentiated():
    """A gradient with respect to a prior with labels exists, and is zero for the labels."""
    prior = CASES["gan_labelled"].make(jax.random.key(1))
    gradient = jax.grad(lambda p: jnp.sum(p.decode(jnp.ones(2)) ** 2))(prior)
    assert float(gradient._condition._array) == 0.0
    table = gradient.net.net.table
    assert np.any(table[1] != 0)
    assert not np.any(table[jnp.array([0, 2])])
