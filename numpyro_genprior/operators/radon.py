"""`Radon`: line integrals of an image, for tomography with parallel beams."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.operators.gram import DenseGram, gram_of
from numpyro_genprior.operators.operator import Operator, as_shape


class Radon(Operator):
    """Line integrals of an image along parallel rays, at several angles.

    Parameters
    ----------
    event_shape
        Shape of the image, ``(rows, columns)``.
    angles
        In degrees.
    num_detectors
        Rays at each angle, one pixel apart and centred. None: the longer side of the image.

    Raises
    ------
    ValueError
        If the event is not an image, or there are no angles.

    Notes
    -----
    Data are the sinogram, of shape ``(num_detectors, number of angles)``, in units of the event
    times pixels. Along each ray the image is sampled once per pixel by bilinear interpolation, and
    is zero outside. The geometry (directions, the centre at ``size // 2``, the shape of the
    sinogram) is that of scikit-image's ``radon(image, angles, circle=True)``, which sets the image
    to zero outside its inscribed circle; this does not.

    The matrix and the eigenvectors of ``A Aᵀ`` are stored: 63 and 59 MB for 64×64 pixels and 60
    angles, which take a minute to build.

    **Fails when** the instrument integrates over strips or cones: pass your own matrix to `Dense`.
    Many more pixels than 128×128 do not fit into memory.

    References
    ----------
    Kak, Slaney, Principles of computerized tomographic imaging, 1988, chapter 3.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> A = ngp.operators.Radon((8, 8), angles=[0, 90])
    >>> image = jnp.zeros((8, 8)).at[2, 3].set(1.0)
    >>> A.data_shape, A(image)[:, 0].argmax(), A(image)[:, 1].argmax()
    ((8, 2), Array(3, dtype=int32), Array(6, dtype=int32))
    """

    _matrix: jax.Array
    gram: DenseGram
    event_shape: tuple[int, ...] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, event_shape: tuple[int, int], angles: ArrayLike, *, num_detectors: int | None = None
    ) -> None:
        shape = as_shape(event_shape, "Radon")
        degrees = np.asarray(angles, float).ravel()
        if len(shape) != 2 or not degrees.size or not np.isfinite(degrees).all():
            raise ValueError(
                message(
                    "Radon needs an image and angles",
                    expected="event_shape (rows, columns) and angles in degrees",
                    got=f"event_shape {shape}, {degrees.size} angles",
                    remedy="pass e.g. Radon((28, 28), np.arange(0, 180, 10))",
                )
            )
        detectors = max(shape) if num_detectors is None else num_detectors
        if detectors < 1:
            raise ValueError(
                message(
                    "Radon: there are no rays",
                    expected="num_detectors of at least 1",
                    got=num_detectors,
                    remedy="leave num_detectors=None",
                )
            )
        self.event_shape, self.data_shape = shape, (detectors, len(degrees))
        dtype = jnp.result_type(float)
        self._matrix = jnp.asarray(_matrix(shape, degrees, detectors), dtype)
        self.gram = gram_of(self._matrix, self.data_shape)

    def _apply(self, x: jax.Array) -> jax.Array:
        return (self._matrix @ jnp.ravel(x)).reshape(self.data_shape)

    def _adjoint(self, y: jax.Array) -> jax.Array:
        return (jnp.ravel(y) @ self._matrix).reshape(self.event_shape)


def _matrix(shape: tuple[int, ...], degrees: np.ndarray, detectors: int) -> np.ndarray:
    """Weights of bilinear samples along the rays, of shape ``(detectors · angles, pixels)``."""
    rows, columns = shape
    half_length = int(np.ceil(np.hypot(rows, columns)))
    s = np.arange(detectors) - detectors // 2
    t = np.arange(-half_length, half_length + 1)
    matrix = np.zeros((detectors, len(degrees), rows * columns))
    ray = np.broadcast_to(np.arange(detectors)[:, None], (detectors, len(t)))
    for j, angle in enumerate(np.deg2rad(degrees)):
        # Rounded, so that rays along the axes pass exactly through pixel centres.
        x = np.round(np.cos(angle) * s[:, None] + np.sin(angle) * t[None], 9) + columns // 2
        y = np.round(np.cos(angle) * t[None] - np.sin(angle) * s[:, None], 9) + rows // 2
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        for dx in (0, 1):
            for dy in (0, 1):
                weight = np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
                column, row = left + dx, top + dy
                inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
                inside &= weight > 0
                pixel = row[inside] * columns + column[inside]
                np.add.at(matrix[:, j], (ray[inside], pixel), weight[inside])
    return matrix.reshape(detectors * len(degrees), rows * columns)
