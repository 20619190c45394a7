"""A convolution primitive that is lowered channels-last on CPU, and its substitution in a jaxpr.

`convolution_p` is ``lax.conv_general_dilated`` under another name: same operands, parameters,
shapes and numbers. On every platform but the CPU it is lowered as that convolution. Its
transformation rules are those of JAX, with the convolutions that they create replaced in turn, so
that gradients, batches and gradients of these are lowered channels-last too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, Unpack

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import ad, batching, mlir

from numpyro_genprior.networks.convolution import layout
from numpyro_genprior.networks.convolution.layout import ConvolutionParams

if TYPE_CHECKING:
    from jax.core import ShapedArray
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

AnyJaxpr = TypeVar("AnyJaxpr", bound="Jaxpr | ClosedJaxpr")

# Primitives that only run the jaxprs in their parameters. Pallas kernels do more.
_CONTROL_FLOW = frozenset(
    "pjit jit closed_call core_call remat remat2 checkpoint scan while cond custom_linear_solve "
    "custom_jvp_call custom_vjp_call".split()
)

convolution_p = Primitive("channels_last_convolution")


def has_convolutions(jaxpr: Jaxpr | ClosedJaxpr) -> bool:
    """Whether a (closed) jaxpr, or one that it runs, holds a convolution of JAX."""
    return any(
        equation.primitive is conv_general_dilated_p or any(map(has_convolutions, _inner(equation)))
        for equation in jaxpr.eqns
    )


def replace_convolutions(jaxpr: AnyJaxpr) -> AnyJaxpr:
    """The same (closed) jaxpr with `convolution_p` in place of each convolution of JAX."""
    either: Any = jaxpr  # before JAX 0.12 a closed jaxpr holds its jaxpr in a field
    if getattr(either, "jaxpr", either) is not either:
        return either.replace(jaxpr=replace_convolutions(either.jaxpr))
    return either.replace(eqns=[_replaced(equation) for equation in either.eqns])


def with_replaced(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, from arrays to one array, with its convolutions replaced."""

    def call(*arrays: jax.Array) -> jax.Array:
        (result,) = jaxpr_as_fun(replace_convolutions(jax.make_jaxpr(function)(*arrays)))(*arrays)
        return result

    return call


def _is_jaxpr(value: object) -> TypeGuard[Jaxpr | ClosedJaxpr]:
    return hasattr(value, "eqns") and hasattr(value, "replace")


def _inner(equation: JaxprEqn) -> list[Any]:
    if equation.primitive.name not in _CONTROL_FLOW:
        return []
    values = equation.params.values()
    nested = [value if isinstance(value, tuple) else (value,) for value in values]
    return [item for items in nested for item in items if _is_jaxpr(item)]


def _replaced(equation: JaxprEqn) -> JaxprEqn:
    if equation.primitive is conv_general_dilated_p:
        return equation.replace(primitive=convolution_p)
    if not any(map(has_convolutions, _inner(equation))):
        return equation
    params = {name: _replaced_param(value) for name, value in equation.params.items()}
    return equation.replace(params=params)


def _replaced_param(value: object) -> object:
    if _is_jaxpr(value):
        return replace_convolutions(value)
    if isinstance(value, tuple) and any(map(_is_jaxpr, value)):
        items = [_replaced_param(item) for item in value]
        cls: Any = type(value)
        return cls(*items) if hasattr(value, "_fields") else tuple(items)
    return value


# ---- rules ---------------------------------------------------------------------------------------


def _transpose_lhs(
    cotangent: jax.Array,
    lhs: ad.UndefinedPrimal,
    rhs: jax.Array,
    **params: Unpack[ConvolutionParams],
) -> jax.Array:
    def transposed(cotangent: jax.Array, rhs: jax.Array) -> jax.Array:
        function = lambda lhs: layout.plain(lhs, rhs, **params)  # noqa: E731
        return jax.linear_transpose(function, lhs.aval)(cotangent)[0]

    return with_replaced(transposed)(cotangent, rhs)


def _transpose_rhs(
    cotangent: jax.Array,
    lhs: jax.Array,
    rhs: ad.UndefinedPrimal,
    **params: Unpack[ConvolutionParams],
) -> jax.Array:
    def transposed(cotangent: jax.Array, lhs: jax.Array) -> jax.Array:
        function = partial(layout.plain, lhs, **params)
        return jax.linear_transpose(function, rhs.aval)(cotangent)[0]

    return with_replaced(transposed)(cotangent, lhs)


def _batch(
    arrays: Sequence[jax.Array], axes: Sequence[int | None], **params: Unpack[ConvolutionParams]
) -> tuple[jax.Array, int]:
    batched = jax.vmap(partial(layout.plain, **params), in_axes=tuple(axes))
    return with_replaced(batched)(*arrays), 0


def _shape_rule(*avals: ShapedArray, **params: Unpack[ConvolutionParams]) -> ShapedArray:
    return conv_general_dilated_p.abstract_eval(*avals, **params)[0]


convolution_p.def_impl(layout.plain)
convolution_p.def_abstract_eval(_shape_rule)
ad.defbilinear(convolution_p, _transpose_lhs, _transpose_rhs)
batching.primitive_batchers[convolution_p] = _batch
mlir.register_lowering(convolution_p, mlir.lower_fun(layout.plain, multiple_results=False))
mlir.register_lowering(
    convolution_p, mlir.lower_fun(layout.channels_last, multiple_results=False), platform="cpu"
)
