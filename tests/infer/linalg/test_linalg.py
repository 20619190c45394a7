"""Conjugate gradients and subspace iteration against dense linear algebra."""

import jax.numpy as jnp
import lineax
import numpy as np
import pytest

from numpyro_genprior.infer.linalg.conjugate_gradient import ConjugateGradient, solve
from numpyro_genprior.infer.linalg.subspace_iteration import OVERSAMPLING, leading_subspace


def tagged(matrix):
    return lineax.MatrixLinearOperator(matrix, lineax.positive_semidefinite_tag)


def spectrum(rng, eigenvalues):
    """A random symmetric matrix of these eigenvalues."""
    vectors = np.linalg.qr(rng.normal(size=(len(eigenvalues), len(eigenvalues))))[0]
    return (vectors * eigenvalues) @ vectors.T


@pytest.mark.float64
def test_error_is_below_the_bound_that_was_asked_for(rng):
    for smallest in (1.0, 0.01):
        matrix = spectrum(rng, np.geomspace(smallest, 1e4, 30))
        right = rng.normal(size=30)
        exact = np.linalg.solve(matrix, right)
        for rtol in (0.3, 1e-3):
            solver = ConjugateGradient(rtol=rtol, atol=0.0, smallest=smallest)
            found = lineax.linear_solve(tagged(jnp.asarray(matrix)), jnp.asarray(right), solver)
            error = np.asarray(found.value) - exact
            assert error @ matrix @ error <= rtol**2 * (exact @ matrix @ exact)
            assert found.stats["num_steps"] > 1


@pytest.mark.float64
def test_pytrees_are_one_system(rng):
    matrix = spectrum(rng, np.linspace(1.0, 9.0, 5))
    structure = {"a": jnp.zeros(2), "b": jnp.zeros((3, 1))}

    def product(v):
        flat = jnp.asarray(matrix) @ jnp.concatenate([v["a"], v["b"][:, 0]])
        return {"a": flat[:2], "b": flat[2:, None]}

    operator = lineax.FunctionLinearOperator(product, structure, lineax.positive_semidefinite_tag)
    right = {"a": jnp.ones(2), "b": -jnp.ones((3, 1))}
    solver = ConjugateGradient(rtol=1e-10, atol=0.0)
    found = lineax.linear_solve(operator, right, solver).value
    exact = np.linalg.solve(matrix, [1, 1, -1, -1, -1])
    np.testing.assert_allclose(found["a"], exact[:2], rtol=1e-8)
    np.testing.assert_allclose(found["b"][:, 0], exact[2:], rtol=1e-8)


def test_where_conjugate_gradients_of_lineax_break_down():
    """Norm 1 and condition number 1e6, in single precision: its reason for existing."""
    diagonal = jnp.geomspace(1e-6, 1.0, 8)
    operator, right = tagged(jnp.diag(diagonal)), jnp.sqrt(diagonal)
    theirs = lineax.linear_solve(operator, right, lineax.CG(1e-6, 1e-6, max_steps=99), throw=False)
    assert not np.isfinite(theirs.value).all()
    ours = lineax.linear_solve(
        operator, right, ConjugateGradient(rtol=1e-2, atol=0.0, smallest=1e-6)
    )
    error = ours.value - right / diagonal
    assert jnp.sum(diagonal * error**2) <= 1e-4 * jnp.sum(right**2 / diagonal)


def test_too_few_steps_and_missing_tag(rng):
    matrix = jnp.asarray(spectrum(rng, np.geomspace(1.0, 1e4, 20)), jnp.float32)
    solver = ConjugateGradient(rtol=1e-3, atol=0.0, max_steps=2)
    found = lineax.linear_solve(tagged(matrix), jnp.ones(20), solver, throw=False)
    assert found.result == lineax.RESULTS.max_steps_reached
    with pytest.raises(ValueError, match="Tag the operator"):
        lineax.linear_solve(lineax.MatrixLinearOperator(matrix), jnp.ones(20), solver)


@pytest.mark.float64
def test_systems_in_step(rng):
    matrix = jnp.asarray(spectrum(rng, np.geomspace(1.0, 100.0, 6)))
    right = jnp.asarray(rng.normal(size=(2, 3, 6)))
    found = solve(lambda v: v @ matrix, right, error=1e-8, max_steps=50)
    assert found.converged.all()
    np.testing.assert_allclose(found.x, right @ jnp.linalg.inv(matrix), rtol=1e-6)
    np.testing.assert_allclose(found.square, jnp.sum(found.x * right, -1), rtol=1e-6)


@pytest.mark.float64
def test_leading_subspace(rng):
    eigenvalues = 2.0 ** -np.arange(60)
    matrix = jnp.asarray(spectrum(rng, eigenvalues))
    rows = leading_subspace(lambda v: v @ matrix, 60, 5 + OVERSAMPLING, matrix.dtype)
    np.testing.assert_allclose(rows @ rows.T, np.eye(15), atol=1e-12)
    ritz = np.linalg.eigvalsh(rows @ matrix @ rows.T)[::-1]
    np.testing.assert_allclose(ritz[:5], eigenvalues[:5], rtol=1e-10)
