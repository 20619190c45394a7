"""Eigendecompositions of ``A Aᵀ``, which also diagonalise ``σ² I + τ² A Aᵀ``."""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


class Gram(eqx.Module):
    """``A Aᵀ = U diag(eigenvalues) Uᵀ`` with U orthogonal, as a pair of transforms of data.

    Attributes
    ----------
    eigenvalues
        At least zero, of the shape of the coefficients: as many as there are data.
    """

    eigenvalues: eqx.AbstractVar[jax.Array]

    @abstractmethod
    def analyse(self, data: jax.Array) -> jax.Array:
        """Uᵀ: one array of data to coefficients."""

    @abstractmethod
    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        """U: coefficients to data, the inverse and the adjoint of `analyse`."""

    @abstractmethod
    def diagonal(self) -> jax.Array:
        """The diagonal of ``A Aᵀ``, data-shaped."""


class IdentityGram(Gram):
    """For orthonormal rows, ``A Aᵀ = I``: U is the identity and all eigenvalues are 1."""

    eigenvalues: jax.Array

    def analyse(self, data: jax.Array) -> jax.Array:
        return data

    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        return coefficients

    def diagonal(self) -> jax.Array:
        return self.eigenvalues


class DiagonalGram(Gram):
    """For orthogonal rows: U is the identity."""

    eigenvalues: jax.Array

    def analyse(self, data: jax.Array) -> jax.Array:
        return data

    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        return coefficients

    def diagonal(self) -> jax.Array:
        return self.eigenvalues


class HartleyGram(Gram):
    """For periodic convolutions: U is the Hartley transform, real, orthogonal and its own inverse.

    ``H = Re F - Im F`` for the orthonormal Fourier transform F (Bracewell 1983). It diagonalises
    symmetric circulant matrices such as ``A Aᵀ``, with eigenvalues on the grid of ``fftn``.
    """

    eigenvalues: jax.Array

    def analyse(self, data: jax.Array) -> jax.Array:
        spectrum = jnp.fft.fftn(data, norm="ortho")
        return spectrum.real - spectrum.imag

    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        return self.analyse(coefficients)

    def diagonal(self) -> jax.Array:
        return jnp.full_like(self.eigenvalues, jnp.mean(self.eigenvalues))


class DenseGram(Gram):
    """For any matrix: U is stored."""

    eigenvalues: jax.Array
    vectors: jax.Array
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def analyse(self, data: jax.Array) -> jax.Array:
        return jnp.ravel(data) @ self.vectors

    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        return jnp.reshape(self.vectors @ coefficients, self.data_shape)

    def diagonal(self) -> jax.Array:
        return jnp.reshape(self.vectors**2 @ self.eigenvalues, self.data_shape)


def gram_of(matrix: jax.Array, data_shape: tuple[int, ...]) -> DenseGram:
    """The spectrum of ``A Aᵀ`` for a matrix A, in double precision on the host unless traced."""
    if isinstance(matrix, Tracer):
        eigenvalues, vectors = jnp.linalg.eigh(matrix @ matrix.T)
    else:
        exact = np.asarray(matrix, np.float64)
        eigenvalues, vectors = np.linalg.eigh(exact @ exact.T)
    eigenvalues = jnp.maximum(jnp.asarray(eigenvalues, matrix.dtype), 0)
    return DenseGram(eigenvalues, jnp.asarray(vectors, matrix.dtype), data_shape)
