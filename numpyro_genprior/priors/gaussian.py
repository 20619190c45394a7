"""`GaussianPrior`: a Gaussian whose covariance is of low rank plus diagonal."""

from __future__ import annotations

import math
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.priors import low_rank
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.stored import StoredPrior


class GaussianPrior(Prior):
    """A Gaussian of low rank plus diagonal: covariance ``factor factorᵀ + diag(diagonal)``.

    Parameters
    ----------
    loc
        Mean, of the event's shape.
    factor
        Array of shape ``event_shape + (rank,)``.
    diagonal
        Variances of the independent part, positive, broadcasting to the event.

    Raises
    ------
    ValueError
        If shapes do not fit or a variance is not positive.

    Notes
    -----
    **Density** exact: with D the diagonal, F the factor and C = I + Fᵀ D⁻¹ F (Woodbury and the
    matrix determinant lemma), ``log p(x) = -½ (rᵀD⁻¹r - |L⁻¹FᵀD⁻¹r|² + log|C| + log|D| +
    n log 2π)`` with r = x - loc and C = L Lᵀ. One evaluation costs O(n rank²).

    Under ``ngp.latent(explicit=True)`` the latent is white noise of size ``rank + n``:
    ``x = loc + F z₁ + √D z₂``.

    **Fails when** the events are far from Gaussian, as images of digits are.

    References
    ----------
    Tipping, Bishop, Probabilistic principal component analysis, JRSS B 1999. Rasmussen, Williams,
    Gaussian processes for machine learning, 2006, appendix A.3.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GaussianPrior(jnp.zeros(3), factor=jnp.ones((3, 1)), diagonal=0.5)
    >>> prior.variance
    Array([1.5, 1.5, 1.5], dtype=float32)
    """

    density = "exact"
    fisher_constants = ("_factor", "_diagonal")
    pytree_data_fields = ("_loc", "_factor", "_diagonal")
    trainable_fields = ("_loc", "_factor")
    scale_field = "_diagonal"

    def __init__(
        self,
        loc: ArrayLike,
        *,
        factor: ArrayLike,
        diagonal: ArrayLike,
        validate_args: bool | None = None,
    ) -> None:
        loc = validation.array(loc, "The mean of GaussianPrior")
        factor = validation.array(factor, "The factor of GaussianPrior")
        variances = validation.array(diagonal, "The diagonal of GaussianPrior")
        dtype = jnp.result_type(float, *(a.dtype for a in (loc, factor, variances)))
        self._loc = loc.astype(dtype)
        self._factor = factor.astype(dtype)
        shape = self._loc.shape
        if self._factor.ndim != len(shape) + 1 or self._factor.shape[:-1] != shape:
            raise ValueError(
                message(
                    "GaussianPrior: the factor has the wrong shape",
                    expected=f"{shape} + (rank,)",
                    got=self._factor.shape,
                    remedy="put the rank last; use rank 0 for independent entries",
                )
            )
        variances = validation.positive(
            variances, "The diagonal of GaussianPrior", shape, "pass variances above zero"
        )
        self._diagonal = jnp.broadcast_to(variances.astype(dtype), shape)
        validation.weights_finite((self._loc, self._factor, self._diagonal), "GaussianPrior")
        rank, size = self._factor.shape[-1], math.prod(shape)
        super().__init__(rank + size, event_shape=shape, validate_args=validate_args)

    @classmethod
    def from_samples(cls, data: ArrayLike, *, rank: int) -> GaussianPrior:
        """Fit by maximum likelihood of probabilistic principal components, then the diagonal.

        The factor is ``V (Λ - σ² I)^(1/2)`` for the `rank` leading eigenpairs of the sample
        covariance, σ² the mean of the other eigenvalues (Tipping and Bishop 1999, eq. 12.63 in
        Bishop 2006); the diagonal is then what remains of each entry's sample variance, at
        least a hundredth of σ².

        Parameters
        ----------
        data
            Events, of shape ``(number,) + event_shape``, at least two of them.
        rank
            Rank of the factor, below both the number and the size of the events.

        Raises
        ------
        ValueError
            If there are fewer than two events, if they are not finite or all the same, or if the
            rank is out of range.
        """
        data = validation.array(data, "The data of GaussianPrior.from_samples")
        if data.ndim < 2 or data.shape[0] < 2:
            raise ValueError(
                message(
                    "GaussianPrior.from_samples needs a stack of events",
                    expected="(number, *event_shape) with number of at least 2",
                    got=data.shape,
                    remedy="stack the events along a first dimension",
                )
            )
        if not jnp.issubdtype(data.dtype, jnp.inexact):
            data = data.astype(jnp.result_type(float))
        if not bool(jnp.all(jnp.isfinite(data))):
            raise ValueError("GaussianPrior.from_samples: the data have NaN. Remove those events.")
        number, shape = data.shape[0], data.shape[1:]
        rows = data.reshape(number, -1)
        size = rows.shape[1]
        if not isinstance(rank, (int, np.integer)) or not 0 <= rank < min(number, size):
            raise ValueError(
                message(
                    "GaussianPrior.from_samples: the rank is out of range",
                    expected=f"an integer from 0 to {min(number, size) - 1}",
                    got=rank,
                    remedy="choose a smaller rank, or pass more events",
                )
            )
        loc, factor, diagonal = _probabilistic_pca(rows, int(rank))
        return cls(
            loc.reshape(shape),
            factor=factor.reshape(*shape, rank),
            diagonal=diagonal.reshape(shape),
        )

    @property
    def loc(self) -> jax.Array:
        """Mean, of shape ``event_shape``."""
        return self._loc

    @property
    def factor(self) -> jax.Array:
        """Low-rank factor, of shape ``event_shape + (rank,)``."""
        return self._factor

    @property
    def diagonal(self) -> jax.Array:
        """Variances of the independent part, of shape ``event_shape``."""
        return self._diagonal

    @property
    def mean(self) -> jax.Array:
        return self._loc

    @property
    def variance(self) -> jax.Array:
        return jnp.sum(self._factor**2, -1) + self._diagonal

    def _decode(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        rank = self._factor.shape[-1]
        white = z[rank:].reshape(self._loc.shape)
        return self._loc + self._factor @ z[:rank] + jnp.sqrt(self._diagonal) * white

    def _log_prob(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        factor, diagonal = self._flat()
        residual = (x - self._loc).reshape(-1)
        chol = low_rank.capacitance_cholesky(factor, diagonal)
        # Multiply the vector from the left: XLA hoists what depends on the weights alone out of a
        # loop (the decomposition too), but would copy a transposed factor at each step.
        weighted = residual / diagonal
        projected = solve_triangular(chol, weighted @ factor, lower=True)
        mahalanobis = jnp.sum(residual * weighted) - jnp.sum(projected**2)
        log_det = 2 * jnp.sum(jnp.log(jnp.diag(chol))) + jnp.sum(jnp.log(diagonal))
        return -0.5 * (mahalanobis + log_det + residual.size * math.log(2 * math.pi))

    def _inverse(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        return low_rank.minimum_norm_latent(*self._flat(), (x - self._loc).reshape(-1))

    def _fisher_parameters(self, condition: jax.Array | None) -> dict[str, jax.Array]:
        return {"loc": self._loc}

    def _fisher_root(
        self, tangent: dict[str, jax.Array], condition: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        return low_rank.inverse_root(*self._flat(), tangent["loc"].reshape(-1))

    @classmethod
    def _from_file(cls, stored: StoredPrior) -> Self:
        return cls(
            stored.array("loc"),
            factor=stored.array("factor"),
            diagonal=stored.array("diagonal"),
            validate_args=stored.validate_args,
        )

    def _flat(self) -> tuple[jax.Array, jax.Array]:
        """Factor and diagonal, with the event's entries along one axis."""
        factor = self._factor.reshape(self._loc.size, self._factor.shape[-1])
        return factor, self._diagonal.reshape(-1)


def _probabilistic_pca(rows: jax.Array, rank: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean ``(n,)``, factor ``(n, rank)`` and diagonal ``(n,)`` for events as rows."""
    number, size = rows.shape
    loc = rows.mean(0)
    centred = rows - loc[None]
    _, singular, vectors = jnp.linalg.svd(centred / math.sqrt(number), full_matrices=False)
    eigenvalues = singular**2
    total = jnp.sum(centred**2) / number
    if not float(total) > 0:
        raise ValueError(
            message(
                "GaussianPrior.from_samples: all events are the same",
                remedy="pass events that differ",
            )
        )
    noise = (total - jnp.sum(eigenvalues[:rank])) / (size - rank)
    noise = jnp.maximum(noise, jnp.finfo(rows.dtype).eps * total / size)
    excess = jnp.sqrt(jnp.maximum(eigenvalues[:rank] - noise, 0.0))
    factor = vectors[:rank].T * excess[None]
    remainder = jnp.mean(centred**2, 0) - jnp.sum(factor**2, 1)
    return loc, factor, jnp.maximum(remainder, 0.01 * noise)
