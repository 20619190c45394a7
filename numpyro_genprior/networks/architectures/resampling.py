"""Strided convolutions as matrix products.

The two layers compute the same numbers as PyTorch's
``ConvTranspose2d(kernel=4, stride=2, padding=1)`` and ``Conv2d(kernel=4, stride=2, padding=1)`` by
one matrix product and a few shifted sums. Images are channels-last.

Both this form and :class:`~numpyro_genprior.networks.channels_last` exist because the latter, which
rewrites a user's own convolutions, is slower here: measured on CPU against the same layers by
``lax.conv_general_dilated``, channels-last, one chain's gradient takes 1.3 to 1.9 times less time
with matrix products and a training step 1.7 times less (a batch of 32 chains 1.4 times more), and
double precision, which has no channels-last kernel, is fast inside loops too.
``benchmarks/convolution.py --resampling`` measures it.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

__all__ = ["DownBlock", "UpBlock"]


class UpBlock(eqx.Module):
    """Transposed convolution with a kernel of 4, a stride of 2 and a padding of 1.

    Parameters
    ----------
    in_channels, out_channels
        Numbers of channels.
    key
        Initialises the weights.

    Notes
    -----
    ``weight`` has shape ``(in, kernel row, kernel col, out)``.
    """

    weight: Array
    bias: Array
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)

    def __init__(self, in_channels: int, out_channels: int, *, key: PRNGKeyArray) -> None:
        bound = math.sqrt(3.0 / (4 * in_channels))  # unit gain: 4 of 16 taps meet in each output
        self.weight = jr.uniform(
            key, (in_channels, 4, 4, out_channels), minval=-bound, maxval=bound
        )
        self.bias = jnp.zeros(out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "2*h 2*w o"]:
        """Map ``(h, w, in)`` to ``(2 h, 2 w, out)``."""
        h, w, _ = x.shape
        c = self.out_channels
        taps = x.reshape(h * w, self.in_channels) @ self.weight.reshape(self.in_channels, 16 * c)
        # Kernel row 2 a + p: block offset a, parity p. Row i's tap lands on row 2 (i + a) + p.
        taps = taps.reshape(h, w, 2, 2, 2, 2, c)
        blocks = sum(
            jnp.pad(taps[:, :, a, :, b], ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0), (0, 0)))
            for a in (0, 1)
            for b in (0, 1)
        )
        image = jnp.asarray(blocks).transpose(0, 2, 1, 3, 4).reshape(2 * h + 2, 2 * w + 2, c)
        return image[1:-1, 1:-1] + self.bias[None, None]


class DownBlock(eqx.Module):
    """Convolution with a kernel of 4, a stride of 2 and a padding of 1.

    Parameters
    ----------
    in_channels, out_channels
        Numbers of channels.
    key
        Initialises the weights.

    Notes
    -----
    ``weight`` has shape ``(kernel row, kernel col, in, out)``.
    """

    weight: Array
    bias: Array
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)

    def __init__(self, in_channels: int, out_channels: int, *, key: PRNGKeyArray) -> None:
        bound = math.sqrt(3.0 / (16 * in_channels))
        self.weight = jr.uniform(
            key, (4, 4, in_channels, out_channels), minval=-bound, maxval=bound
        )
        self.bias = jnp.zeros(out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels

    def __call__(self, x: Float[Array, "h w i"]) -> Float[Array, "h/2 w/2 o"]:
        """Map ``(h, w, in)`` to ``(h / 2, w / 2, out)``; h and w must be even."""
        h, w, c = x.shape[0] // 2, x.shape[1] // 2, self.in_channels
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        blocks = padded.reshape(h + 1, 2, w + 1, 2, c).transpose(0, 2, 1, 3, 4)
        # (h, w, a, b, p, q, c): block offsets a, b and parities p, q of the kernel's 4 x 4 taps.
        taps = jnp.stack(
            [jnp.stack([blocks[a : a + h, b : b + w] for b in (0, 1)], axis=2) for a in (0, 1)],
            axis=2,
        )
        kernel = self.weight.reshape(2, 2, 2, 2, c, self.out_channels).transpose(0, 2, 1, 3, 4, 5)
        image = taps.reshape(h * w, 16 * c) @ kernel.reshape(16 * c, self.out_channels)
        return image.reshape(h, w, self.out_channels) + self.bias[None, None]
