"""Affine maps that whiten a posterior at a point: dense, or low rank plus the prior."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import constraints
from numpyro.distributions.transforms import LowerCholeskyAffine, Transform

from numpyro_genprior.infer.linalg.limits import DEFAULT_RANK, MAX_DENSE_COVARIANCE, MAX_JACOBIAN
from numpyro_genprior.infer.linalg.subspace_iteration import (
    OVERSAMPLING,
    leading_subspace,
    random_probes,
)
from numpyro_genprior.infer.posterior import Linearised, Posterior


class Spectrum(NamedTuple):
    """Eigenvalues s² of the data's Fisher information, in units of the prior's.

    Attributes
    ----------
    eigenvalues
        Those that the whitening uses, largest first.
    largest_discarded
        Estimate of the largest that it does not use; 0 if it uses all.
    trace_discarded
        Estimate of the sum of those that it does not use.
    """

    eigenvalues: jax.Array
    largest_discarded: jax.Array
    trace_discarded: jax.Array

    def log_det_discarded(self, size: int) -> tuple[jax.Array, jax.Array]:
        """Bounds of ``Σ log(1 + λ)`` over the discarded eigenvalues, of `size` in all.

        With their sum t, largest value L and number m, ``t log(1 + L) / L`` (the chord of a
        concave function) and ``m log(1 + t / m)`` (Jensen). The sum is an estimate from w normal
        probes, of variance ``2 Σ λ² / w ≤ 2 L t / w`` (Hutchinson): the bounds are
        evaluated at t minus and plus two standard errors.
        """
        largest, trace = self.largest_discarded, self.trace_discarded
        rank = len(self.eigenvalues)
        number, probes = max(size - rank, 1), min(size, rank + OVERSAMPLING)
        error = jnp.sqrt(2 * largest * trace / probes)
        chord = jnp.where(largest > 0, jnp.log1p(largest) / jnp.maximum(largest, 1e-30), 1.0)
        low = jnp.maximum(trace - 2 * error, 0) * chord
        high = number * jnp.log1p((trace + 2 * error) / number)
        return jnp.minimum(low, high), high


class LowRankAffine(Transform):
    """x = loc + T (z + V ((1 + λ)^(-1/2) - 1) Vᵀ z): the prior, narrowed along k directions.

    The image of a standard normal has covariance ``T (I + V λ Vᵀ)⁻¹ Tᵀ``. A product costs O(k n).

    Parameters
    ----------
    loc
        Of shape ``(n,)``.
    basis
        Orthonormal directions V, of shape ``(n, k)``.
    eigenvalues
        λ, of shape ``(k,)``, not negative.
    tril
        Lower triangular T of the coordinates `others`; T is the identity on the other ones.
    others
        Indices of coordinates whose prior is not a standard normal.

    Notes
    -----
    **Fails when** the discarded eigenvalues are not small compared to 1: the image is then too
    wide in their directions.
    """

    domain = constraints.real_vector  # pyright: ignore[reportAssignmentType]
    codomain = constraints.real_vector  # pyright: ignore[reportAssignmentType]

    def __init__(
        self,
        loc: jax.Array,
        basis: jax.Array,
        eigenvalues: jax.Array,
        *,
        tril: jax.Array | None = None,
        others: tuple[int, ...] = (),
    ) -> None:
        self.loc, self.basis, self.eigenvalues = loc, basis, eigenvalues
        self.tril = jnp.zeros((0, 0), loc.dtype) if tril is None else tril
        self.others = others

    def __call__(self, x: jax.Array) -> jax.Array:
        shrink = jax.lax.rsqrt(1 + self.eigenvalues) - 1
        scaled = self._prior(self._along(x, shrink))
        return jnp.broadcast_to(self.loc, scaled.shape) + scaled

    def _inverse(self, y: jax.Array) -> jax.Array:
        x = self._prior(y - jnp.broadcast_to(self.loc, y.shape), inverse=True)
        return self._along(x, jnp.sqrt(1 + self.eigenvalues) - 1)

    def _along(self, x: jax.Array, factor: jax.Array) -> jax.Array:
        weights = x @ self.basis
        return x + (weights * jnp.broadcast_to(factor, weights.shape)) @ self.basis.T

    def _prior(self, x: jax.Array, *, inverse: bool = False) -> jax.Array:
        if not self.others:
            return x
        index = np.asarray(self.others)
        part = x[..., index]
        tril = jnp.linalg.inv(self.tril) if inverse else self.tril
        return x.at[..., index].set(part @ tril.T, unique_indices=True)

    def log_abs_det_jacobian(self, x: jax.Array, y: jax.Array, intermediates: Any = None) -> Any:
        value = -0.5 * jnp.sum(jnp.log1p(self.eigenvalues))
        value = value + jnp.sum(jnp.log(jnp.diagonal(self.tril)))
        return jnp.broadcast_to(value, jnp.shape(x)[:-1])

    def covariance(self) -> jax.Array:
        """Covariance of the image of a standard normal, of shape ``(n, n)``: for small n."""
        rows = self(jnp.eye(self.loc.shape[0], dtype=self.loc.dtype))
        rows = rows - jnp.broadcast_to(self.loc, rows.shape)
        return rows.T @ rows

    def variance(self) -> jax.Array:
        """Diagonal of the covariance, of shape ``(n,)``, without the matrix."""
        shrink = self.eigenvalues / (1 + self.eigenvalues)
        variance = 1 - jnp.sum(self.basis**2 * jnp.broadcast_to(shrink, self.basis.shape), -1)
        if not self.others:
            return variance
        index = np.asarray(self.others)
        basis = self.tril @ self.basis[index]
        block = jnp.sum(self.tril**2, -1)
        block = block - jnp.sum(basis**2 * jnp.broadcast_to(shrink, basis.shape), -1)
        return variance.at[index].set(block)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def tree_flatten(self) -> Any:
        names = ("loc", "basis", "eigenvalues", "tril")
        return tuple(getattr(self, name) for name in names), (names, {"others": self.others})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LowRankAffine) or self.others != other.others:
            return False
        names = ("loc", "basis", "eigenvalues", "tril")
        return all(bool(jnp.array_equal(getattr(self, n), getattr(other, n))) for n in names)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def fisher_whitening(
    posterior: Posterior, xi: jax.Array, *, rank: int | None = None
) -> tuple[Transform, Spectrum]:
    """The affine map whose image of a standard normal has the inverse metric as covariance.

    Parameters
    ----------
    posterior, xi
        The metric is ``prior precision + JᵀJ`` of `posterior` at `xi`, and `xi` the map's location.
    rank
        Number of directions. None: all of them (a dense map) up to 1024 coordinates, 128 beyond.

    Returns
    -------
    Transform
        ``LowerCholeskyAffine``, or `LowRankAffine`.
    Spectrum
        Which eigenvalues it uses, and estimates of the others.

    Notes
    -----
    Dense: with ``[B^(1/2); J] = Q R``, the covariance is ``R⁻¹ R⁻ᵀ``; J is not squared, which
    would lose half of the digits, unless it is too large to form. Low rank: randomized subspace
    iteration (Halko, Martinsson, Tropp, SIAM Review 2011, algorithm 4.4) on
    ``B^(-1/2) JᵀJ B^(-1/2)``, B the prior precision.

    **Fails when** the spectrum falls slowly beyond `rank`: see `Spectrum`.
    """
    linearised = posterior.linearise(xi)
    if rank is None and posterior.size <= MAX_DENSE_COVARIANCE:
        return _dense(linearised)
    return _low_rank(linearised, min(posterior.size, DEFAULT_RANK if rank is None else rank))


def _dense(linearised: Linearised) -> tuple[LowerCholeskyAffine, Spectrum]:
    size = linearised.posterior.size
    root = _prior_root(linearised)
    unit = jnp.eye(size, dtype=linearised.xi.dtype)
    if size * linearised.num_rows <= MAX_JACOBIAN:
        jacobian = jax.vmap(linearised.matvec, out_axes=1)(unit)
    else:
        gram = jax.lax.map(linearised.fisher, unit)
        eigenvalues, vectors = jnp.linalg.eigh(0.5 * (gram + gram.T))
        scale = jnp.sqrt(jnp.maximum(eigenvalues, 0))
        jacobian = jnp.broadcast_to(scale[:, None], (size, size)) * vectors.T
    # Reversing the columns makes the triangular factor of the covariance a lower one.
    upper = jnp.linalg.qr(jnp.concatenate([root, jacobian])[:, ::-1], mode="r")
    tril = solve_triangular(upper, unit)[::-1, ::-1]
    sign = jnp.where(jnp.diagonal(tril) < 0, -1.0, 1.0).astype(tril.dtype)
    tril = jnp.tril(tril * jnp.broadcast_to(sign, tril.shape))
    whitened = jacobian @ _inverse_root(linearised)
    eigenvalues = jnp.linalg.svd(whitened, compute_uv=False) ** 2
    eigenvalues = jnp.pad(eigenvalues, (0, max(0, size - eigenvalues.shape[0])))
    zero = jnp.zeros((), linearised.xi.dtype)
    return LowerCholeskyAffine(linearised.xi, tril), Spectrum(eigenvalues, zero, zero)


def _low_rank(linearised: Linearised, rank: int) -> tuple[LowRankAffine, Spectrum]:
    size, dtype = linearised.posterior.size, linearised.xi.dtype
    prior_map = prior_affine(linearised)

    def push(v: jax.Array) -> jax.Array:
        return linearised.matvec(prior_map(v))

    pull = jax.linear_transpose(push, linearised.xi)
    width = min(size, rank + OVERSAMPLING)
    probes = leading_subspace(jax.vmap(lambda v: pull(push(v))[0]), size, width, dtype)
    rows, singular, _ = jnp.linalg.svd(jax.vmap(push)(probes), full_matrices=False)
    singular = jnp.pad(singular, (0, max(0, width - singular.shape[0])))
    rows = jnp.pad(rows, ((0, 0), (0, max(0, width - rows.shape[1]))))
    basis, eigenvalues = (rows.T @ probes)[:rank].T, singular**2
    transform = LowRankAffine(
        linearised.xi, basis, eigenvalues[:rank], tril=prior_map.tril, others=prior_map.others
    )
    discarded = eigenvalues[rank] if width > rank else jnp.zeros((), dtype)
    white = random_probes(width, size, dtype)
    remainder = white - (white @ basis) @ basis.T
    trace = jnp.sum(jax.vmap(push)(remainder) ** 2) / width
    return transform, Spectrum(eigenvalues[:rank], discarded, trace)


def prior_affine(linearised: Linearised) -> LowRankAffine:
    """The linear map whose image of a standard normal has the prior's precision."""
    size, dtype = linearised.posterior.size, linearised.xi.dtype
    return LowRankAffine(
        jnp.zeros(size, dtype),
        jnp.zeros((size, 0), dtype),
        jnp.zeros(0, dtype),
        tril=_others_inverse_root(linearised),
        others=tuple(map(int, np.flatnonzero(~linearised.posterior.standard_normal))),
    )


def _others_inverse_root(linearised: Linearised) -> jax.Array | None:
    """T with T Tᵀ the prior covariance of the coordinates that are not standard normal."""
    if linearised.precision is None:
        return None
    if linearised.precision.ndim == 1:
        return jnp.diag(jax.lax.rsqrt(linearised.precision))
    upper = jnp.linalg.cholesky(linearised.precision[::-1, ::-1])[::-1, ::-1]  # precision = U Uᵀ
    return solve_triangular(upper, jnp.eye(len(upper), dtype=upper.dtype)).T


def _inverse_root(linearised: Linearised) -> jax.Array:
    block = _others_inverse_root(linearised)
    unit = jnp.eye(linearised.posterior.size, dtype=linearised.xi.dtype)
    if block is None:
        return unit
    others = np.flatnonzero(~linearised.posterior.standard_normal)
    return unit.at[np.ix_(others, others)].set(block)


def _prior_root(linearised: Linearised) -> jax.Array:
    """B^(1/2) with B^(1/2)ᵀ B^(1/2) the prior precision."""
    return jnp.linalg.inv(_inverse_root(linearised))
