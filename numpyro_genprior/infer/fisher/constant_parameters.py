"""`require_constant`: refuse values that depend on latent variables where a rule has constants."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import PyTree


def require_constant(value: jax.Array, others: PyTree, refusal: str) -> jax.Array:
    """`value`, unchanged; differentiation raises if `others` carry a tangent.

    While JAX differentiates, the tangent of an array that does not depend on the latent variables
    is a symbolic zero. The check computes nothing.

    Parameters
    ----------
    value
        An array that the result depends on.
    others
        Pytree whose inexact arrays must be constant.
    refusal
        Message of the error.

    Raises
    ------
    ValueError
        During differentiation, with the message `refusal`.
    """
    arrays = [leaf for leaf in jax.tree.leaves(others) if eqx.is_inexact_array(leaf)]
    return _require_constant(refusal, value, arrays) if arrays else value


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _require_constant(refusal: str, value: jax.Array, others: list[jax.Array]) -> jax.Array:
    del refusal, others
    return value


def _require_constant_jvp(
    refusal: str,
    primals: tuple[jax.Array, list[jax.Array]],
    tangents: tuple[jax.Array | SymbolicZero, list[jax.Array | SymbolicZero]],
) -> tuple[jax.Array, jax.Array | SymbolicZero]:
    value, _ = primals
    tangent, others = tangents
    if any(not isinstance(t, SymbolicZero) for t in others):
        raise ValueError(refusal)
    return value, tangent


_require_constant.defjvp(_require_constant_jvp, symbolic_zeros=True)
