"""Helpers of the checks: their registry, two assertions, compiled programs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior

Check = Callable[[Prior, jax.Array], None]

CHECKS: dict[str, Check] = {}
"""The checks by name, each a function of a prior and a random key."""


def check(function: Check) -> Check:
    """Add a check under its name (a decorator)."""
    CHECKS[function.__name__.strip("_")] = function
    return function


def expect(
    truth: ArrayLike, what: str, *, expected: object = None, got: object = None, remedy: str
) -> None:
    """Raise AssertionError with a message of four parts unless `truth` holds."""
    if not bool(truth):
        expected = None if expected is None else str(expected)
        raise AssertionError(message(what, expected=expected, got=got, remedy=remedy))


def expect_close(
    got: ArrayLike, expected: ArrayLike, what: str, *, remedy: str, rtol: float = 0.0
) -> None:
    """Raise AssertionError unless two arrays agree to within a tolerance for the precision."""
    got, expected = np.asarray(got), np.asarray(expected)
    rtol = rtol or (1e-6 if jax.config.jax_enable_x64 else 2e-3)  # type: ignore[attr-defined]
    close = got.shape == expected.shape and np.allclose(got, expected, rtol=rtol, atol=rtol)
    expect(close, what, expected=expected, got=got, remedy=remedy)


# Compiled functions with the prior as an argument, so that each of them is compiled once.


@functools.partial(jax.jit, static_argnums=2)
def sampled(prior: Prior, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return prior.sample(key, shape)


@jax.jit
def decoded(prior: Prior, z: jax.Array) -> jax.Array:
    return prior.decode(z)


@jax.jit
def log_prob_of(prior: Prior, x: jax.Array) -> jax.Array:
    return prior.log_prob(x)


def draw(prior: Prior, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Latents of the prior, its batch dimensions included."""
    return jnp.asarray(prior.latent.expand(prior.batch_shape).sample(key, shape))


def invertible(prior: Prior) -> bool:
    """Whether `log_prob` can be called; flows without an inverse raise an error."""
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
