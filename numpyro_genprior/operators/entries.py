"""Operators on single entries: `Identity`, `Mask`, `Diagonal`."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.gram import DiagonalGram, Gram, IdentityGram
from numpyro_genprior.operators.operator import Entrywise, as_float, as_shape, require_finite


class Identity(Entrywise):
    """Data are the event itself (denoising).

    Parameters
    ----------
    event_shape
        Shape of one event.

    Raises
    ------
    ValueError
        If this is not a shape.

    Notes
    -----
    **Fails when** data are missing (NaN): use `Mask`.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> ngp.operators.Identity((2, 2))(jnp.eye(2))
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    gram: IdentityGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, event_shape: int | tuple[int, ...]) -> None:
        self.event_shape = self.data_shape = as_shape(event_shape, "Identity")
        self.gram = IdentityGram(jnp.ones(self.data_shape))

    def product_gram(self, inner: Gram) -> Gram | None:
        return inner

    def _apply(self, x: jax.Array) -> jax.Array:
        return x

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return y


class Mask(Entrywise):
    """Data are some entries of the event (inpainting).

    Parameters
    ----------
    mask
        Booleans of the event's shape, True where an entry is seen. It must not be traced, since the
        number of data depends on it.

    Raises
    ------
    TypeError
        If it is not boolean, or traced.
    ValueError
        If nothing is seen.

    Notes
    -----
    Data are a vector of the seen entries in C order: ``y = image[mask]``.

    **Fails when** masks of a batch differ in their number of seen entries: use one operator each.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> A = ngp.operators.Mask(jnp.array([[True, False], [False, True]]))
    >>> A(jnp.array([[1.0, 2.0], [3.0, 4.0]])), A.adjoint(jnp.array([5.0, 6.0]))
    (Array([1., 4.], dtype=float32), Array([[5., 0.],
           [0., 6.]], dtype=float32))
    """

    indices: jax.Array
    """Flat indices of the seen entries."""
    gram: IdentityGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, mask: ArrayLike) -> None:
        seen = concrete_mask(mask, "Mask")
        self.event_shape = seen.shape
        self.indices = jnp.asarray(np.flatnonzero(seen), jnp.int32)
        self.data_shape = self.indices.shape
        self.gram = IdentityGram(jnp.ones(self.data_shape))

    def product_gram(self, inner: Gram) -> Gram | None:
        return DiagonalGram(self(inner.eigenvalues)) if isinstance(inner, DiagonalGram) else None

    def _apply(self, x: jax.Array) -> jax.Array:
        return jnp.ravel(x)[self.indices]

    def _adjoint(self, y: jax.Array) -> jax.Array:
        size = int(np.prod(self.event_shape))
        flat = jnp.zeros(size, y.dtype).at[self.indices].set(y, unique_indices=True)
        return flat.reshape(self.event_shape)


class Diagonal(Entrywise):
    """Data are the entries of the event times weights (exposures, vignetting, units).

    Parameters
    ----------
    weights
        Of the event's shape.

    Raises
    ------
    ValueError
        If a weight is not finite.

    Notes
    -----
    If the standard deviation of the generator's error is an array `scale`, use
    ``MarginalNormal(A @ Diagonal(scale), x / scale, event_scale=1.0, ...)``; draws of the event are
    then in units of `scale`.

    **Fails when** entries that were not measured get the weight zero: each then counts as a datum
    of value zero. Use `Mask`.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> ngp.operators.Diagonal(jnp.array([1.0, 2.0]))(jnp.array([3.0, 4.0]))
    Array([3., 8.], dtype=float32)
    """

    weights: jax.Array
    gram: DiagonalGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, weights: ArrayLike) -> None:
        self.weights = as_float(weights)
        self.event_shape = self.data_shape = as_shape(self.weights.shape, "Diagonal")
        require_finite(self.weights, "Diagonal: a weight")
        self.gram = DiagonalGram(self.weights**2)

    def product_gram(self, inner: Gram) -> Gram | None:
        if not isinstance(inner, DiagonalGram):
            return None
        return DiagonalGram(self.weights**2 * inner.eigenvalues)

    def _apply(self, x: jax.Array) -> jax.Array:
        return self.weights * x

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return self.weights * y


def concrete_mask(mask: ArrayLike, what: str) -> np.ndarray:
    """A mask as a NumPy array.

    Raises
    ------
    TypeError
        If it is not boolean, or traced.
    ValueError
        If it is False everywhere.
    """
    if isinstance(mask, Tracer):
        raise TypeError(
            message(
                f"{what}: the mask is traced",
                expected="an array that is known when the operator is built",
                got="a tracer of jax.jit or jax.vmap",
                remedy="build the operator outside, and pass it instead of the mask",
            )
        )
    seen = np.asarray(mask)
    if seen.dtype != bool:
        raise TypeError(
            message(
                f"{what}: the mask is not boolean",
                expected="True where an entry is seen",
                got=f"dtype {seen.dtype}",
                remedy="pass mask.astype(bool), or mask > 0",
            )
        )
    if seen.ndim < 1 or not seen.any():
        raise ValueError(
            message(
                f"{what}: nothing is seen",
                expected="an array with at least one True",
                got=f"shape {seen.shape}, all False",
                remedy="True marks what is seen, not what is hidden: pass ~mask",
            )
        )
    return seen
