"""`Fourier`: frequencies of the event, as real numbers."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.entries import concrete_mask
from numpyro_genprior.operators.gram import IdentityGram
from numpyro_genprior.operators.operator import Operator, as_shape


class Fourier(Operator):
    """Data are Fourier coefficients of a real event (interferometry, magnetic resonance).

    Parameters
    ----------
    event_shape
        Shape of one event; all of its dimensions are transformed.
    mask
        Booleans on the half grid of ``numpy.fft.rfftn``, of shape ``(*event_shape[:-1],
        event_shape[-1] // 2 + 1)``, zero frequency first: True where a frequency is seen. If the
        half grid holds a frequency and its negative (in the first column and, for an even last
        size, in the last), both are seen if either is. None: all.

    Raises
    ------
    TypeError, ValueError
        If the mask is not boolean, has another shape, is traced, or is False everywhere.

    Notes
    -----
    **Packing.** Data are a real vector: real parts, then imaginary parts, of the orthonormal
    transform ``rfftn(x, norm="ortho")`` at the seen frequencies in C order. A frequency and its
    negative have conjugate coefficients; the first in that order is kept, times √2. A frequency
    that is its own negative (zero and the Nyquist frequency) has a real part only. The rows of A
    are then orthonormal; without a mask, there are as many data as entries and A is orthogonal.
    `pack` converts measured coefficients to data.

    **Units.** Those of the event; white noise of standard deviation σ in each entry of the event
    is white noise of σ in each datum. Noise of σ in the real and the imaginary part of a
    coefficient of ``fftn(x)`` without normalisation is ``√2 σ/√n`` in a datum, n the number of
    entries (``σ/√n`` in the few that are real).

    **Fails when** frequencies were measured off the grid: use `Dense`.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> A = ngp.operators.Fourier((4, 4))
    >>> A.data_shape, A(jnp.ones((4, 4)))[:3]
    ((16,), Array([4., 0., 0.], dtype=float32))
    """

    _real_indices: jax.Array
    _imaginary_indices: jax.Array
    _weight: jax.Array
    gram: IdentityGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, event_shape: int | tuple[int, ...], *, mask: ArrayLike | None = None
    ) -> None:
        self.event_shape = as_shape(event_shape, "Fourier")
        half = half_grid(self.event_shape)
        seen = np.ones(half, bool) if mask is None else concrete_mask(mask, "Fourier")
        if seen.shape != half:
            raise ValueError(
                message(
                    "Fourier: the mask has the wrong shape",
                    expected=f"{half}, the half grid of numpy.fft.rfftn",
                    got=seen.shape,
                    remedy="cut a mask of the full grid: "
                    "np.fft.ifftshift(mask)[..., : n // 2 + 1] where zero is in its middle",
                )
            )
        first, is_real = _conjugate_pairs(self.event_shape)
        measured = seen.ravel() | seen.ravel()[first]
        measured[first] |= measured  # a frequency is seen if its negative is
        kept = np.flatnonzero(measured & (first == np.arange(first.size)))
        self._real_indices = jnp.asarray(kept, jnp.int32)
        self._imaginary_indices = jnp.asarray(kept[~is_real[kept]], jnp.int32)
        self._weight = jnp.asarray(
            np.where(is_real[kept], 1.0, math.sqrt(2)), jnp.result_type(float)
        )
        self.data_shape = (len(self._real_indices) + len(self._imaginary_indices),)
        self.gram = IdentityGram(jnp.ones(self.data_shape))

    def pack(self, coefficients: ArrayLike) -> jax.Array:
        """Convert measured coefficients to data.

        Parameters
        ----------
        coefficients
            Complex, of shape ``(..., *half grid)``, with the normalisation of ``norm="ortho"``.
            Those that are not seen may be anything.

        Returns
        -------
        jax.Array
            Of shape ``(..., *data_shape)``.
        """
        half = half_grid(self.event_shape)
        values = jnp.asarray(coefficients)
        lead = values.shape[: values.ndim - len(half)]
        if values.shape != lead + half:
            raise ValueError(
                message(
                    "Fourier.pack: the coefficients have the wrong shape",
                    expected=f"(..., {', '.join(map(str, half))})",
                    got=values.shape,
                    remedy="give the half grid of numpy.fft.rfftn",
                )
            )
        flat = values.reshape(*lead, -1)
        real = flat[..., self._real_indices].real * jnp.broadcast_to(
            self._weight, (*lead, len(self._real_indices))
        ).astype(flat.real.dtype)
        imaginary = math.sqrt(2) * flat[..., self._imaginary_indices].imag
        return jnp.concatenate([real, imaginary], -1)

    def unpack(self, data: ArrayLike) -> jax.Array:
        """Convert data to complex coefficients on the half grid, zero where nothing is seen.

        Parameters
        ----------
        data
            Of shape ``(..., *data_shape)``.

        Returns
        -------
        jax.Array
            Of shape ``(..., *half grid)``: ``rfftn(A.adjoint(data), norm="ortho")``.
        """
        axes = tuple(range(-len(self.event_shape), 0))
        return jnp.fft.rfftn(self.adjoint(data), axes=axes, norm="ortho")

    def _apply(self, x: jax.Array) -> jax.Array:
        return self.pack(jnp.fft.rfftn(x, norm="ortho"))

    def _adjoint(self, y: jax.Array) -> jax.Array:
        x = jax.ShapeDtypeStruct(self.event_shape, y.dtype)
        return jax.linear_transpose(self._apply, x)(y)[0]


def half_grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the output of ``numpy.fft.rfftn``."""
    return (*shape[:-1], shape[-1] // 2 + 1)


def _conjugate_pairs(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For each entry of the half grid the index of the first one with the same or the conjugate
    coefficient, and whether its frequency is its own negative (the coefficient is real).
    """
    half = half_grid(shape)
    index = np.indices(half).reshape(len(half), -1)
    sizes = np.array(shape)[:, None]
    negative = (-index) % sizes
    inside = negative[-1] < half[-1]
    flat = np.arange(index.shape[1])
    conjugate = np.where(inside, np.ravel_multi_index(tuple(negative), half, mode="clip"), flat)
    return np.minimum(flat, conjugate), (negative == index).all(0)
