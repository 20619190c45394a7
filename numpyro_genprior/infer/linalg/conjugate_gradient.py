"""Conjugate gradients that stop by a bound of the error, given a lower bound of eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, ScalarLike

from numpyro_genprior.errors import message


class ConjugateGradient(lineax.AbstractLinearSolver[lineax.AbstractLinearOperator]):
    """Conjugate gradients for positive definite operators, as a solver of lineax.

    Parameters
    ----------
    rtol, atol
        Stop if the error e of the solution x of ``M x = b`` has ``eᵀMe`` at most ``atol²``, or at
        most ``rtol²`` times ``xᵀMx``. In units of N(0, M⁻¹), ``atol²`` is a number of coordinates
        that are one standard deviation off.
    smallest
        A lower bound of the eigenvalues of M.
    max_steps
        Maximum number of iterations.

    Notes
    -----
    It differs from ``lineax.CG``, which stops by the residual (this may be √|M| times the error if
    the data are precise), and whose test of breakdown asks for ``pᵀMp > 100 ε n |r|²`` (ε the
    precision, n the number of coordinates), so that in single precision it fails if an eigenvalue
    is below 1.2e-5 n: for a matrix of norm 1 and condition number 1e6, and for the identity of a
    million coordinates. `MGVI` and `LevenbergMarquardt` call `solve`, which keeps many right-hand
    sides in step and states the bound of the error.

    **Fails when** M is so large that its products are rounding error, as `solve` does.

    Examples
    --------
    >>> import jax.numpy as jnp, lineax
    >>> from numpyro_genprior.infer.linalg.conjugate_gradient import ConjugateGradient
    >>> M = jnp.diag(jnp.array([1.0, 4.0, 9.0]))
    >>> operator = lineax.MatrixLinearOperator(M, lineax.positive_semidefinite_tag)
    >>> solver = ConjugateGradient(rtol=1e-4, atol=0.0)
    >>> x = lineax.linear_solve(operator, jnp.ones(3), solver).value
    >>> [f"{value:.3f}" for value in x]
    ['1.000', '0.250', '0.111']
    """

    rtol: ScalarLike
    atol: ScalarLike
    smallest: ScalarLike = 1.0
    max_steps: int = 1000

    def init(
        self, operator: lineax.AbstractLinearOperator, options: dict[str, Any]
    ) -> lineax.AbstractLinearOperator:
        if not lineax.is_positive_semidefinite(operator):
            raise ValueError(
                message(
                    "ConjugateGradient solves with positive definite operators",
                    expected="an operator tagged lineax.positive_semidefinite_tag",
                    remedy="tag the operator if it is one, or use lineax.AutoLinearSolver",
                )
            )
        return operator

    def compute(
        self,
        state: lineax.AbstractLinearOperator,
        vector: PyTree[Array],
        options: dict[str, Any],
    ) -> tuple[PyTree[Array], lineax.RESULTS, dict[str, Any]]:
        rhs, unravel = ravel_pytree(vector)
        found = solve(
            lambda v: ravel_pytree(state.mv(unravel(v)))[0],
            rhs,
            error=self.atol,
            relative=self.rtol,
            smallest=self.smallest,
            max_steps=self.max_steps,
        )
        results = lineax.RESULTS
        failure = results.where(
            found.steps >= self.max_steps, results.max_steps_reached, results.breakdown
        )
        result = results.where(found.converged, results.successful, failure)
        return unravel(found.x), result, {"num_steps": found.steps, "max_steps": self.max_steps}

    def transpose(
        self, state: lineax.AbstractLinearOperator, options: dict[str, Any]
    ) -> tuple[lineax.AbstractLinearOperator, dict[str, Any]]:
        return state, options  # symmetric

    def conj(
        self, state: lineax.AbstractLinearOperator, options: dict[str, Any]
    ) -> tuple[lineax.AbstractLinearOperator, dict[str, Any]]:
        return lineax.conj(state), options

    def assume_full_rank(self) -> bool:
        return True

    # In place of `assume_full_rank`, before version 0.1 of lineax.
    def allow_dependent_columns(self, operator: lineax.AbstractLinearOperator) -> bool:
        return False

    def allow_dependent_rows(self, operator: lineax.AbstractLinearOperator) -> bool:
        return False


class Solution(NamedTuple):
    """Solutions of ``M x = b``.

    Attributes
    ----------
    x
        Of the shape of b.
    square
        xᵀMx, of the shape of b but for its last dimension.
    steps
        Iterations of each.
    converged
        Whether each has met its bound. False if the limit of iterations, or numbers that are
        not finite, stopped it.
    """

    x: Float[Array, "*systems n"]
    square: Float[Array, "*systems"]
    steps: Int[Array, "*systems"]
    converged: Bool[Array, "*systems"]


class _State(NamedTuple):
    x: jax.Array
    residual: jax.Array
    direction: jax.Array
    square: jax.Array  # |residual|²
    share: jax.Array  # |residual|² / |direction|²
    x_square: jax.Array  # xᵀMx
    steps: jax.Array
    active: jax.Array
    converged: jax.Array
    count: jax.Array


def solve(
    metric: Callable[[jax.Array], jax.Array],
    rhs: Float[Array, "*systems n"],
    *,
    error: ScalarLike,
    relative: ScalarLike = 0.0,
    smallest: ScalarLike = 1.0,
    max_steps: int,
) -> Solution:
    """Solve M x = b from x = 0, for symmetric M whose eigenvalues are at least `smallest`.

    Parameters
    ----------
    metric
        Products with M, over the last dimension.
    rhs
        b, of shape ``(..., n)``: leading dimensions are systems, solved in lock-step.
    error, relative
        Stop once the error e has eᵀMe at most ``error²``, or ``relative²`` times xᵀMx. In units
        of N(0, M⁻¹), ``error² = n`` is one standard deviation in each coordinate.
    smallest
        A lower bound of the eigenvalues of M, if they may be below 1.
    max_steps
        Maximum number of iterations.

    Notes
    -----
    The squared error is at most ``|r|⁴ / |p|²``, with residual r and direction p, if no eigenvalue
    of M is below 1 (Meurant and Tichý 2013, *On computing quadrature-based bounds for the A-norm of
    the error in conjugate gradients*). A bound of the residual is too strict if the data are
    precise: the residual may be √|M| times the error.

    **Source** of the iteration: M. R. Hestenes & E. Stiefel, "Methods of conjugate gradients for
    solving linear systems", J. Res. NBS 49 (1952).

    **Fails when** M is so large that its products are rounding error: the relative error then
    stays at or above about √|M| times the floating-point precision.
    """
    bound = jnp.asarray(error, rhs.dtype) ** 2

    def meets_bound(share: jax.Array, square: jax.Array, x_square: jax.Array) -> jax.Array:
        return share * square <= smallest * jnp.maximum(bound, relative**2 * x_square)

    def iterate(s: _State) -> _State:
        product = metric(s.direction)
        curvature = _dot(s.direction, product)
        active = s.active & (curvature > 0) & jnp.isfinite(curvature)
        # A system that has converged takes steps of length 0: cheaper than selecting its old state.
        length = jnp.where(active, s.square / jnp.where(active, curvature, 1), 0)
        residual = s.residual - length[..., None] * product
        square = _dot(residual, residual)
        ratio = jnp.where(active, square / jnp.where(active, s.square, 1), 0)
        share = s.share / (s.share + ratio)
        x_square = s.x_square + length * s.square
        done = active & meets_bound(share, square, x_square)
        return _State(
            x=s.x + length[..., None] * s.direction,
            residual=residual,
            direction=residual + ratio[..., None] * s.direction,
            square=square,
            share=share,
            x_square=x_square,
            steps=s.steps + active,
            active=active & ~done & jnp.isfinite(square),
            converged=s.converged | done,
            count=s.count + 1,
        )

    square = _dot(rhs, rhs)
    zero, one = jnp.zeros_like(square), jnp.ones_like(square)
    solved = meets_bound(one, square, zero)
    first = _State(
        x=jnp.zeros_like(rhs),
        residual=rhs,
        direction=rhs,
        square=square,
        share=one,
        x_square=zero,
        steps=jnp.zeros(square.shape, int),
        active=~solved & jnp.isfinite(square),
        converged=solved,
        count=jnp.zeros((), int),
    )
    last = jax.lax.while_loop(lambda s: s.active.any() & (s.count < max_steps), iterate, first)
    return Solution(last.x, last.x_square, last.steps, last.converged)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, -1)
