"""Parameters that a rule takes as known: refused when they depend on what is inferred."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
from jax.custom_derivatives import SymbolicZero


def known(value: jax.Array, others: Any, refusal: str) -> jax.Array:
    """`value`, unchanged; differentiation raises when `others` carry a tangent.

    Whether a parameter depends on a latent variable is known to JAX while it differentiates: the
    tangent of what does not depend on it is a symbolic zero. Nothing is computed for the check.

    Parameters
    ----------
    value
        An array on its way to the result.
    others
        Pytree; its inexact arrays must be constant.
    refusal
        The message.

    Raises
    ------
    ValueError
        During differentiation, with the message `refusal`.
    """
    arrays = [leaf for leaf in jax.tree.leaves(others) if eqx.is_inexact_array(leaf)]
    return _known(refusal, value, arrays) if arrays else value


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _known(refusal: str, value: jax.Array, others: list[jax.Array]) -> jax.Array:
    del refusal, others
    return value


def _known_jvp(refusal: str, primals: Any, tangents: Any) -> Any:
    value, _ = primals
    tangent, others = tangents
    if any(not isinstance(t, SymbolicZero) for t in others):
        raise ValueError(refusal)
    return value, tangent


_known.defjvp(_known_jvp, symbolic_zeros=True)
