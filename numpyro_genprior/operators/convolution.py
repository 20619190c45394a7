"""Periodic convolutions by FFT: `Convolution` with a given kernel, and a Gaussian `Blur`."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.gram import HartleyGram
from numpyro_genprior.operators.operator import Operator, as_float, as_shape, require_finite


class Convolution(Operator):
    """Convolution with a given kernel, on a periodic grid.

    Parameters
    ----------
    kernel
        An array with as many dimensions as the event, none of them longer. Its middle entry
        (index ``size // 2`` along each axis) is the weight of the pixel itself.
    event_shape
        Shape of one event.

    Raises
    ------
    ValueError
        If the kernel is larger than the event, has another number of dimensions, or is not finite.

    Notes
    -----
    ``A Aᵀ`` is circulant: its eigenvalues are the squared moduli of the kernel's transfer
    function, and a product with any function of it costs two FFTs.

    **Fails when** the image is not periodic and the kernel extends beyond its edge: opposite edges
    blur into one another. For a convolution with zeros (or anything else) beyond the edge use
    `Dense`, or ``Mask @ Convolution`` on a padded event.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> A = ngp.operators.Convolution(jnp.array([0.25, 0.5, 0.25]), event_shape=(4,))
    >>> A(jnp.array([1.0, 0.0, 0.0, 0.0])).round(6)
    Array([0.5 , 0.25, 0.  , 0.25], dtype=float32)
    """

    _response: jax.Array
    gram: HartleyGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, kernel: ArrayLike, event_shape: int | tuple[int, ...]) -> None:
        kernel = as_float(kernel)
        shape = as_shape(event_shape, "Convolution")
        if kernel.ndim != len(shape) or any(
            k > n for k, n in zip(kernel.shape, shape, strict=True)
        ):
            raise ValueError(
                message(
                    "Convolution: the kernel does not fit the event",
                    expected=f"{len(shape)} dimensions of at most {shape}",
                    got=kernel.shape,
                    remedy="cut the kernel, or pass event_shape=prior.event_shape",
                )
            )
        require_finite(kernel, "Convolution: the kernel")
        self.event_shape = self.data_shape = shape
        padded = jnp.zeros(shape, kernel.dtype).at[tuple(map(slice, kernel.shape))].set(kernel)
        centred = jnp.roll(padded, [-(k // 2) for k in kernel.shape], range(kernel.ndim))
        self._response = jnp.fft.rfftn(centred)
        self.gram = HartleyGram(jnp.abs(jnp.fft.fftn(centred)) ** 2)

    def _apply(self, x: jax.Array) -> jax.Array:
        return _filter(x, self._response)

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return _filter(y, jnp.conj(self._response))


class Blur(Operator):
    """Convolution with a Gaussian, on a periodic grid.

    Parameters
    ----------
    event_shape
        Shape of one event.
    width
        Standard deviation of the Gaussian in pixels: a number, or one for each axis.

    Raises
    ------
    ValueError
        If a width is negative or not finite, or their number is neither one nor that of the axes.

    Notes
    -----
    The transfer function is ``exp(-2 π² Σ width² f²)`` with f in cycles per pixel: the
    kernel sums to 1, whatever the width.

    **Fails when** the image is not periodic and the kernel extends beyond its edge, see
    `Convolution`.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> A = ngp.operators.Blur((28, 28), 1.0)
    >>> f"{A(jnp.zeros((28, 28)).at[5, 5].set(1.0))[5, 5]:.4f}"  # about 1 / (2π)
    '0.1586'
    """

    _response: jax.Array
    gram: HartleyGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, event_shape: int | tuple[int, ...], width: float | Sequence[float]) -> None:
        shape = as_shape(event_shape, "Blur")
        widths = np.asarray(width, float)
        if widths.shape not in ((), (len(shape),)) or not (
            np.isfinite(widths).all() and (widths >= 0).all()
        ):
            raise ValueError(
                message(
                    "Blur: this is not a width",
                    expected=f"a standard deviation in pixels, or {len(shape)} of them",
                    got=width,
                    remedy="pass e.g. width=1.5",
                )
            )
        self.event_shape = self.data_shape = shape
        axes = [np.fft.fftfreq(n) for n in shape]
        widths = np.broadcast_to(widths, len(shape))
        exponent = np.zeros(shape)
        for w, f in zip(widths, np.meshgrid(*axes, indexing="ij"), strict=True):
            exponent += (w * f) ** 2
        response = np.exp(-2 * np.pi**2 * exponent)
        real = jnp.result_type(float)
        self._response = jnp.asarray(response[..., : shape[-1] // 2 + 1], real)
        self.gram = HartleyGram(jnp.asarray(response**2, real))

    def _apply(self, x: jax.Array) -> jax.Array:
        return _filter(x, self._response)

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return _filter(y, self._response)


def _filter(x: jax.Array, response: jax.Array) -> jax.Array:
    return jnp.fft.irfftn(jnp.fft.rfftn(x) * response, s=x.shape)
