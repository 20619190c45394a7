"""A convolution that stays recognisable under every transformation, and its place in a jaxpr.

`convolution_p` is ``lax.conv_general_dilated`` under another name: same operands, parameters,
shapes and numbers. JAX lowers it as that convolution on every platform but the CPU, where it
becomes channels-last. Its rules are those of JAX, with the convolutions that they make replaced in
turn, so that gradients, batches and their gradients keep the form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import ad, batching, mlir

from numpyro_genprior.networks.convolution import layout

# Equations that only run the jaxprs in their parameters. Kernels (Pallas) are none of them.
_CONTROL_FLOW = frozenset(
    "pjit jit closed_call core_call remat remat2 checkpoint scan while cond custom_linear_solve "
    "custom_jvp_call custom_vjp_call".split()
)

convolution_p = Primitive("channels_last_convolution")


def has_convolutions(jaxpr: Any) -> bool:
    """Whether a (closed) jaxpr, or one that it runs, holds a convolution of JAX."""
    return any(
        equation.primitive is conv_general_dilated_p or any(map(has_convolutions, _inner(equation)))
        for equation in jaxpr.eqns
    )


def replace_convolutions(jaxpr: Any) -> Any:
    """The same jaxpr (or closed jaxpr) with `convolution_p` for each convolution of JAX."""
    if getattr(jaxpr, "jaxpr", jaxpr) is not jaxpr:  # a closed jaxpr, before JAX 0.12
        return jaxpr.replace(jaxpr=replace_convolutions(jaxpr.jaxpr))
    return jaxpr.replace(eqns=[_replaced(equation) for equation in jaxpr.eqns])


def with_replaced(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays, giving one array, with its convolutions replaced."""

    def call(*arrays: jax.Array) -> jax.Array:
        (result,) = jaxpr_as_fun(replace_convolutions(jax.make_jaxpr(function)(*arrays)))(*arrays)
        return result

    return call


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") and hasattr(value, "replace")


def _inner(equation: Any) -> list[Any]:
    if equation.primitive.name not in _CONTROL_FLOW:
        return []
    values = equation.params.values()
    nested = [value if isinstance(value, tuple) else (value,) for value in values]
    return [item for items in nested for item in items if _is_jaxpr(item)]


def _replaced(equation: Any) -> Any:
    if equation.primitive is conv_general_dilated_p:
        return equation.replace(primitive=convolution_p)
    if not any(map(has_convolutions, _inner(equation))):
        return equation
    params = {name: _replaced_param(value) for name, value in equation.params.items()}
    return equation.replace(params=params)


def _replaced_param(value: Any) -> Any:
    if _is_jaxpr(value):
        return replace_convolutions(value)
    if isinstance(value, tuple) and any(map(_is_jaxpr, value)):
        items = map(_replaced_param, value)
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


# ---- rules ---------------------------------------------------------------------------------------


def _transpose_lhs(cotangent: Any, lhs: Any, rhs: Any, **params: Any) -> jax.Array:
    def transposed(cotangent: jax.Array, rhs: jax.Array) -> jax.Array:
        function = lambda lhs: layout.plain(lhs, rhs, **params)  # noqa: E731
        return jax.linear_transpose(function, lhs.aval)(cotangent)[0]

    return with_replaced(transposed)(cotangent, rhs)


def _transpose_rhs(cotangent: Any, lhs: Any, rhs: Any, **params: Any) -> jax.Array:
    def transposed(cotangent: jax.Array, lhs: jax.Array) -> jax.Array:
        function = partial(layout.plain, lhs, **params)
        return jax.linear_transpose(function, rhs.aval)(cotangent)[0]

    return with_replaced(transposed)(cotangent, lhs)


def _batch(arrays: Sequence[Any], axes: Sequence[Any], **params: Any) -> tuple[jax.Array, int]:
    batched = jax.vmap(partial(layout.plain, **params), in_axes=tuple(axes))
    return with_replaced(batched)(*arrays), 0


def _shape_rule(*avals: Any, **params: Any) -> Any:
    return conv_general_dilated_p.abstract_eval(*avals, **params)[0]


convolution_p.def_impl(layout.plain)
convolution_p.def_abstract_eval(_shape_rule)
ad.defbilinear(convolution_p, _transpose_lhs, _transpose_rhs)
batching.primitive_batchers[convolution_p] = _batch
mlir.register_lowering(convolution_p, mlir.lower_fun(layout.plain, multiple_results=False))
mlir.register_lowering(
    convolution_p, mlir.lower_fun(layout.channels_last, multiple_results=False), platform="cpu"
)
