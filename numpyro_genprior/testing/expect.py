"""What the checks share: a register, two ways to complain, compiled programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior

Check = Callable[[Prior, jax.Array], None]

CHECKS: dict[str, Check] = {}
"""The checks by name, each a function of a prior and a random key."""


def check(function: Check) -> Check:
    """Add a check under its name (a decorator)."""
    CHECKS[function.__name__.strip("_")] = function
    return function


def expect(truth: Any, what: str, *, expected: Any = None, got: Any = None, remedy: str) -> None:
    if not bool(truth):
        expected = None if expected is None else str(expected)
        raise AssertionError(message(what, expected=expected, got=got, remedy=remedy))


def expect_close(got: Any, expected: Any, what: str, *, remedy: str, rtol: float = 0.0) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    rtol = rtol or (1e-6 if jax.config.jax_enable_x64 else 2e-3)  # type: ignore[attr-defined]
    close = got.shape == expected.shape and np.allclose(got, expected, rtol=rtol, atol=rtol)
    expect(close, what, expected=expected, got=got, remedy=remedy)


# Programs with the prior as an argument, so that the checks compile each of them once.


@functools.partial(jax.jit, static_argnums=2)
def sampled(prior: Any, key: jax.Array, shape: tuple[int, ...]) -> Any:
    return prior.sample(key, shape)


@jax.jit
def decoded(prior: Any, z: jax.Array) -> Any:
    return prior.decode(z)


@jax.jit
def log_prob_of(prior: Any, x: jax.Array) -> Any:
    return prior.log_prob(x)


def draw(prior: Prior, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    return jnp.asarray(prior.latent.expand(prior.batch_shape).sample(key, shape))


def invertible(prior: Prior) -> bool:
    """Whether `log_prob` can be called: a one-directional flow says that it cannot."""
    if prior.density != "exact":
        return False
    x = jax.ShapeDtypeStruct(prior.batch_shape + prior.event_shape, prior.event_dtype)
    try:
        log_prob_of.eval_shape(prior, x)
    except NotImplementedError as error:
        expect(
            "explicit" in str(error),
            "log_prob of an exact prior without an inverse raises without a remedy",
            got=error,
            remedy="name @ngp.latent(explicit=True) in the message",
        )
        return False
    return True
