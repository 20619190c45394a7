"""The problems of ``inference.py``, each written with a prior and by hand."""

# %%
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from convolution import decoder, stored_weights
from jax import lax

import numpyro_genprior as ngp


@dataclass(frozen=True)
class Case:
    """One posterior, written as two models with the latent site ``x_latent``.

    Attributes
    ----------
    title
        Description of the problem.
    ours, by_hand
        A model and the argument that holds its weights.
    y
        The data, the models' other argument.
    """

    title: str
    ours: tuple[Callable[..., None], Any]
    by_hand: tuple[Callable[..., None], Any]
    y: jax.Array


def _two_models(size: int, observe: Callable[[Any, Any], None]) -> tuple[Any, Any]:
    """A model of a prior, and one of a network by hand, with the same observation."""

    @partial(ngp.latent, noise="omit", explicit=True)
    def ours(prior: Any, y: Any) -> None:
        observe(numpyro.sample("x", prior), y)

    def by_hand(net: Any, y: Any) -> None:
        z = numpyro.sample("x_latent", dist.Normal(jnp.zeros(size), 1).to_event(1))
        observe(numpyro.deterministic("x", net(z)), y)

    return ours, by_hand


# %%
def mlp(weights: str | None) -> Case:
    """20 latents, 28×28 pixels, 100 random measurements with 3 % of noise."""
    prior: Any = ngp.pretrained.load("mnist_vae")
    keys = jax.random.split(jax.random.key(7), 3)  # seeds for which NUTS converges, too
    instrument = jax.random.normal(keys[0], (100, 784)) / 28
    truth = prior.decode(jax.random.normal(keys[1], (20,)))
    clean = instrument @ truth.ravel()
    noise = 0.03 * jnp.std(clean)

    def observe(x: Any, y: Any) -> None:
        numpyro.sample("y", dist.Normal(instrument @ x.ravel(), noise).to_event(1), obs=y)

    y = clean + noise * jax.random.normal(keys[2], clean.shape)
    net = jax.tree_util.Partial(_call, prior.net)
    ours, by_hand = _two_models(20, observe)
    return Case(mlp.__doc__ or "", (ours, prior), (by_hand, net), y)


def conv(weights: str | None) -> Case:
    """A convolutional decoder, ten rows hidden, noise of 0.1."""
    shipped: Any = ngp.pretrained.load("mnist_conv_vae")
    if weights is None:
        prior, net = shipped, jax.tree_util.Partial(_as_written, shipped.net.net)
        size, hidden = 16, slice(0, 10)
    else:
        net = jax.tree_util.Partial(decoder, stored_weights(weights))
        prior, size, hidden = ngp.GANPrior(net, 10), 10, slice(0, 10)

    def observe(x: Any, y: Any) -> None:
        seen = jnp.squeeze(x)[hidden.stop :]
        numpyro.sample("y", dist.Normal(seen, 0.1).to_event(2), obs=y)

    keys = jax.random.split(jax.random.key(2), 2)  # seeds for which NUTS converges, too
    seen = jnp.squeeze(net(jax.random.normal(keys[0], (size,))))[hidden.stop :]
    y = seen + 0.1 * jax.random.normal(keys[1], seen.shape)
    ours, by_hand = _two_models(size, observe)
    return Case(conv.__doc__ or "", (ours, prior), (by_hand, net), y)


def wide(weights: str | None) -> Case:
    """834 latents of a Gaussian, 28×28 photon counts."""
    prior: Any = ngp.pretrained.load("mnist_gaussian")
    (size,) = prior.latent.event_shape

    def observe(x: Any, y: Any) -> None:
        rate = 20 * jax.nn.softplus(4 * x) / 4
        numpyro.sample("y", dist.Poisson(rate).to_event(2), obs=y)

    keys = jax.random.split(jax.random.key(5), 2)
    truth = prior.decode(jax.random.normal(keys[0], (size,)))
    y = jax.random.poisson(keys[1], 20 * jax.nn.softplus(4 * truth) / 4)
    net = jax.tree_util.Partial(
        _linear, (prior.loc, prior.factor, jnp.sqrt(jnp.broadcast_to(prior.diagonal, (28, 28))))
    )
    ours, by_hand = _two_models(size, observe)
    return Case(wide.__doc__ or "", (ours, prior), (by_hand, net), y)


CASES = {"mlp": mlp, "conv": conv, "wide": wide}


# %% Networks written by hand
def _call(net: Any, z: jax.Array) -> jax.Array:
    out = net(z)
    return out[0] if isinstance(out, tuple) else out


def _linear(weights: Any, z: jax.Array) -> jax.Array:
    loc, factor, sd = weights
    rank = factor.shape[-1]
    return loc + (factor @ z[:rank]).reshape(loc.shape) + sd * z[rank:].reshape(loc.shape)


def _as_written(net: Any, z: jax.Array) -> jax.Array:
    """The shipped decoder with ``lax.conv_general_dilated``, as a transposed convolution is."""
    stages = len(net.channels)
    x = net.dense(z).reshape(net.event_shape[0] >> stages, net.event_shape[1] >> stages, -1)
    x = x.transpose(2, 0, 1)
    for block in net.blocks:
        kernel = jnp.flip(block.weight, (1, 2)).transpose(3, 0, 1, 2)
        padding = ((2, 2), (2, 2))
        x = lax.conv_general_dilated(
            jax.nn.relu(x)[None], kernel, (1, 1), padding, lhs_dilation=(2, 2)
        )
        x = x[0] + block.bias[:, None, None]
    return jax.nn.sigmoid(x).transpose(1, 2, 0).reshape(net.event_shape)
