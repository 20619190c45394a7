"""Lipschitz bounds of a function, and the inputs of its rectifiers, read off its jaxpr.

`layer_bound` multiplies the spectral norms of a network's linear layers by the slopes of its
activations (Szegedy et al. 2014, section 4.3; Miyato et al. 2018). It reads the jaxpr, so it works
for networks of every library whose operations are known. `rectified` gives the inputs of the
rectifiers, whose signs say in which linear piece a point lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray, Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.typing import ArrayLike

Atom = Var | Literal

# Largest slopes of elementwise functions.
_SLOPES = {"tanh": 1.0, "logistic": 0.25, "sin": 1.0, "cos": 1.0, "erf": 2 / math.sqrt(math.pi),
           "abs": 1.0, "neg": 1.0, "atan": 1.0, "asinh": 1.0}  # fmt: skip
# Largest slopes, with default arguments, of activations of jax.nn that are several operations.
_COMPOSITE_SLOPES = {"elu": 1.0, "celu": 1.0, "softplus": 1.0, "leaky_relu": 1.0, "silu": 1.1,
                     "selu": 1.7581, "hard_tanh": 1.0}  # fmt: skip
# Operations that keep or move values (stop_gradient changes derivatives only, not values).
_REARRANGEMENTS = ("reshape transpose squeeze expand_dims rev copy copy_p convert_element_type "
                   "slice stop_gradient real broadcast_in_dim pad").split()  # fmt: skip
_CALLS = "pjit jit closed_call core_call custom_jvp_call custom_vjp_call remat2 checkpoint".split()


class UnboundedOperation(Exception):
    """An operation whose slope is unbounded or unknown."""


def layer_bound(function: Callable[[jax.Array], jax.Array], size: int) -> tuple[float, str]:
    """An upper bound on the Lipschitz constant of a function of a vector, in the 2-norm.

    Returns
    -------
    float
        The bound; infinite if there is none.
    str
        The operation that has no bound; empty if all have one.
    """
    closed = jax.make_jaxpr(function)(jnp.zeros(size))
    try:
        return _bound(closed.jaxpr, closed.consts, [1.0], [None])[0], ""
    except UnboundedOperation as reason:
        return math.inf, str(reason)


def _bound(
    jaxpr: Jaxpr, consts: Sequence[Any], slopes: list[float], known: Sequence[Any]
) -> list[float]:
    """Slopes of the outputs; `known` has the values of arguments that are constant."""
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(
        (var, value) for var, value in zip(jaxpr.invars, known, strict=True) if value is not None
    )
    bounds = dict(zip(jaxpr.invars, slopes, strict=True))

    def value(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else values.get(atom)

    def slope(atom: Atom) -> float:
        return 0.0 if isinstance(atom, Literal) else bounds.get(atom, 0.0)

    for equation in jaxpr.eqns:
        incoming = [slope(atom) for atom in equation.invars]
        if not any(incoming) and all(value(atom) is not None for atom in equation.invars):
            outs = equation.primitive.bind(*map(value, equation.invars), **equation.params)
            outs = outs if equation.primitive.multiple_results else [outs]
            values.update(zip(equation.outvars, outs, strict=True))
            continue
        for out, found in zip(equation.outvars, _rule(equation, incoming, value), strict=True):
            bounds[out] = found
    return [slope(atom) for atom in jaxpr.outvars]


def _rule(equation: JaxprEqn, slopes: list[float], value: Callable[[Atom], Any]) -> list[float]:
    """Slopes of the outputs of one equation, from those of its inputs."""
    name = equation.primitive.name
    if not any(jnp.issubdtype(_aval(out).dtype, jnp.inexact) for out in equation.outvars):
        return [math.inf if any(slopes) else 0.0] * len(equation.outvars)  # a step function
    if math.inf in slopes:
        raise UnboundedOperation(f"{name} of a condition on the latent")
    if name in _CALLS:
        activation = _activation(equation, slopes, value)
        if activation is not None:
            return [activation * slopes[0]]
        jaxpr, consts = _inner(equation)
        if jaxpr is None:
            raise UnboundedOperation(name)
        known = [
            None if slope else value(atom)
            for atom, slope in zip(equation.invars, slopes, strict=True)
        ]
        return _bound(jaxpr, consts, slopes, known)
    if name in _SLOPES:
        return [_SLOPES[name] * slopes[0]]
    if name in _REARRANGEMENTS:
        repeats = 1.0
        if name == "broadcast_in_dim":
            size = max(1, _aval(equation.invars[0]).size)
            repeats = math.sqrt(_aval(equation.outvars[0]).size / size)
        return [repeats * slopes[0]]
    if name in ("add", "sub", "add_any"):
        return [sum(_broadcast(equation, i, slope) for i, slope in enumerate(slopes))]
    if name in ("concatenate", "stack"):
        return [math.hypot(*slopes)]
    if name in ("max", "min", "select_n", "clamp"):
        inexact = [s for atom, s in zip(equation.invars, slopes, strict=True)
                   if jnp.issubdtype(_aval(atom).dtype, jnp.inexact)]  # fmt: skip
        moving = [s for s in inexact if s]
        return [max(moving) if len(moving) < 2 else math.hypot(*moving)]
    if name == "reduce_sum":
        ratio = _aval(equation.invars[0]).size / max(1, _aval(equation.outvars[0]).size)
        return [math.sqrt(ratio) * slopes[0]]
    if name in ("mul", "div") and 0.0 in slopes:
        return [_product_with_constant(equation, slopes, value)]
    if name in ("dot_general", "conv_general_dilated", "channels_last_convolution"):
        return [_linear(equation, slopes, value)]
    raise UnboundedOperation(name)


def _aval(atom: Atom) -> ShapedArray:
    return cast(ShapedArray, atom.aval)


def _inner(equation: JaxprEqn) -> tuple[Jaxpr | None, Sequence[Any]]:
    """The jaxpr that an equation calls, and its constants; None if there is none."""
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())


def _activation(
    equation: JaxprEqn, slopes: list[float], value: Callable[[Atom], Any]
) -> float | None:
    """The slope of an activation of jax.nn, recognised by its name and its operations."""
    name, inner = equation.params.get("name"), equation.params.get("jaxpr")
    if name not in _COMPOSITE_SLOPES or any(slopes[1:]):
        return None
    arguments = [jax.ShapeDtypeStruct(_aval(atom).shape, _aval(atom).dtype, weak_type=weak)
                 for atom in equation.invars
                 for weak in [getattr(_aval(atom), "weak_type", False)]]  # fmt: skip
    reference = jax.make_jaxpr(getattr(jax.nn, name))(*arguments).eqns[-1].params.get("jaxpr")
    if str(reference) != str(inner):
        return None
    others = [value(atom) for atom in equation.invars[1:]]  # alpha, or the negative slope
    if any(other is None for other in others):
        return None
    return max([_COMPOSITE_SLOPES[name], *(float(jnp.max(jnp.abs(other))) for other in others)])


def _broadcast(equation: JaxprEqn, index: int, slope: float) -> float:
    size = max(1, _aval(equation.invars[index]).size)
    return slope * math.sqrt(_aval(equation.outvars[0]).size / size)


def _product_with_constant(
    equation: JaxprEqn, slopes: list[float], value: Callable[[Atom], Any]
) -> float:
    moving = 0 if slopes[0] else 1
    factor = value(equation.invars[1 - moving])
    if factor is None or (equation.primitive.name == "div" and moving == 1):
        raise UnboundedOperation(equation.primitive.name)
    largest = float(np.max(np.abs(np.asarray(factor))))
    if equation.primitive.name == "div":
        largest = float(np.max(1 / np.abs(np.asarray(factor))))
    return _broadcast(equation, moving, slopes[moving]) * largest


def _linear(equation: JaxprEqn, slopes: list[float], value: Callable[[Atom], Any]) -> float:
    """Spectral norm of a product with known weights, times the slope of the other operand."""
    moving = 0 if slopes[0] else 1
    weights = value(equation.invars[1 - moving])
    if weights is None or (slopes[0] and slopes[1]):
        raise UnboundedOperation(f"{equation.primitive.name} of two inputs")
    if equation.primitive.name == "dot_general":
        contract, batch = equation.params["dimension_numbers"]
        return slopes[moving] * _matrix_norm(weights, contract[1 - moving], batch[1 - moving])
    if moving == 1:
        raise UnboundedOperation("a convolution with a kernel that depends on the latent")
    return slopes[moving] * _kernel_norm(weights, equation.params["dimension_numbers"].rhs_spec)


def _matrix_norm(weights: ArrayLike, contract: Sequence[int], batch: Sequence[int]) -> float:
    """Spectral norm of a matrix, the largest of a batch."""
    free = [i for i in range(np.ndim(weights)) if i not in (*contract, *batch)]
    array = np.asarray(weights, float).transpose(*batch, *contract, *free)
    rows = math.prod(array.shape[len(batch) : len(batch) + len(contract)])
    stacked = array.reshape(math.prod(array.shape[: len(batch)]), rows, -1)
    return float(np.linalg.norm(stacked, 2, axis=(1, 2)).max())


def _kernel_norm(kernel: ArrayLike, spec: Sequence[int]) -> float:
    """A bound for a convolution: the sum over taps of the norms of their channel matrices."""
    array = np.asarray(kernel, float).transpose(*spec[2:], spec[0], spec[1])
    taps = array.reshape(-1, *array.shape[-2:])
    return float(np.linalg.norm(taps, 2, axis=(1, 2)).sum())


# ---- rectifiers ----------------------------------------------------------------------------------


def rectified(function: Callable[[jax.Array], ArrayLike]) -> Callable[[jax.Array], jax.Array]:
    """A function that gives the inputs of all ``max(x, 0)`` and ``where(x > 0, ...)``, flat."""

    def run(x: jax.Array) -> jax.Array:
        closed = jax.make_jaxpr(function)(x)
        found: list[jax.Array] = []
        _evaluate(closed.jaxpr, closed.consts, [x], found)
        return jnp.concatenate([jnp.ravel(a) for a in found]) if found else jnp.zeros(0, x.dtype)

    return run


def _evaluate(
    jaxpr: Jaxpr, consts: Sequence[Any], arguments: list[Any], found: list[jax.Array]
) -> list[Any]:
    """Outputs of a jaxpr; inputs of its rectifiers are appended to `found`."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        inner, inner_consts = _inner(equation)
        if name in _CALLS and inner is not None:
            outs = _evaluate(inner, inner_consts, operands, found)
        else:
            if name in ("max", "gt", "ge", "lt", "le") and len(operands) == 2:
                found += _rectifier_input(operands)
            outs = equation.primitive.bind(*operands, **equation.params)
            outs = outs if equation.primitive.multiple_results else [outs]
        values.update(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _rectifier_input(operands: list[Any]) -> list[jax.Array]:
    """The operand that is compared with a constant zero, in a list."""
    one, other = operands
    for x, zero in ((one, other), (other, one)):
        if jnp.ndim(zero) == 0 and not isinstance(zero, Tracer) and float(zero) == 0:
            if jnp.issubdtype(jnp.result_type(x), jnp.inexact):
                return [jnp.asarray(x)]
    return []
