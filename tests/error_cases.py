"""Helpers for the tables of errors: the table itself, small priors, a model.

An entry is a function that makes a mistake, with the exception that must be raised and a pattern
that the message must match, usually in its remedy. Each test file has its own table.
"""

import jax
import jax.numpy as jnp
import numpyro
import pytest
from flowjax import distributions as fd
from numpyro import handlers

import numpyro_genprior as ngp

KEY = jax.random.key(0)
Z, X = jnp.zeros(2), jnp.zeros(3)
W = jnp.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])


class Table(dict):
    """Functions that make a mistake, by name."""

    def mistake(self, kind, match):
        """Register the decorated function as a mistake that raises `kind` with this remedy."""

        def register(function):
            assert function.__name__ not in self
            self[function.__name__] = (function, kind, match)
            return function

        return register

    def check(self, name):
        """Make a mistake and check the exception."""
        function, kind, match = self[name]
        with pytest.raises(kind, match=match):
            function()


def linear(z):
    return W @ z


def conditional(z, c):
    return W @ z + c


def heads(z):
    return W @ z, jnp.exp(W @ z)


def gan(**kwargs):
    return ngp.GANPrior(linear, 2, **kwargs)


def vae(scale=0.1, **kwargs):
    return ngp.VAEPrior(linear, 2, scale=scale, **kwargs)


def flow(**kwargs):
    return ngp.FlowPrior(fd.Normal(jnp.zeros(3), jnp.ones(3)), **kwargs)


def model(prior, obs=None, mask=None):
    numpyro.sample("x", prior if mask is None else prior.mask(mask), obs=obs)


def run(model, *args, **kwargs):
    return handlers.trace(handlers.seed(model, KEY)).get_trace(*args, **kwargs)
