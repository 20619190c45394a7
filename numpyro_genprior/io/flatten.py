"""Collect the arrays of a prior under readable names, and replace them by others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import PyTree
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.io.distributions import DISTRIBUTIONS, distribution_name, parameters
from numpyro_genprior.io.errors import PrecisionError, PriorFileError, ShapeError, StructureError
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors.condition import Condition

__all__ = ["collect", "difference", "fill", "to_jax"]

Leaf = jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
Visit = Callable[[str, PyTree], PyTree]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def collect(prior: PyTree) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return all arrays of a prior by name, and its Python numbers, strings and functions by name.

    Names follow the structure: ``net.dense.layers.0.weight``. Integer arrays are among them.

    Raises
    ------
    PriorFileError
        If a leaf is traced or is a random key.
    """
    arrays: dict[str, np.ndarray] = {}
    constants: dict[str, str] = {}

    def visit(name: str, leaf: PyTree) -> PyTree:
        if not _is_array(leaf):
            constants[name] = _constant_text(leaf)
        else:
            arrays[name] = _to_numpy(name, leaf)
        return leaf

    _walk(prior, _uniquely(visit), "")
    return arrays, constants


def fill(
    template: PyTree,
    arrays: Mapping[str, np.ndarray],
    *,
    name: str = "",
    constants: Mapping[str, str] | None = None,
    exact: bool = False,
) -> PyTree:
    """Return a copy of a structure with its arrays replaced by those of the same names.

    Parameters
    ----------
    template
        A prior or a part of one; arrays may be `jax.ShapeDtypeStruct`.
    arrays
        The new arrays.
    name
        Name of the part, in front of its arrays' names.
    constants
        Python numbers and strings of the file, with which those of the template must agree.
    exact
        Whether dtypes must agree too; otherwise only their kinds (inexact, integer, ...).

    Raises
    ------
    StructureError, ShapeError, PrecisionError
        If the arrays do not fit.
    """

    def visit(name: str, leaf: PyTree) -> PyTree:
        if not _is_array(leaf):
            _same_constant(name, leaf, constants or {})
            return leaf
        if name not in arrays:
            raise StructureError(
                message(
                    f"The file has no array {name}, which the expected prior has",
                    got=_listed(arrays),
                    remedy="pass as like= a prior of the same structure as the one that was saved",
                )
            )
        array = arrays[name]
        _same_shape(name, array, leaf, exact)
        return to_jax(name, array)

    return _walk(template, _uniquely(visit), name)


def difference(arrays: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> str | None:
    """The name of an array in which two collections differ, or None."""
    if arrays.keys() != others.keys():
        return min(arrays.keys() ^ others.keys())
    for name, array in arrays.items():
        other = others[name]
        if array.shape != other.shape or not np.array_equal(array, other):
            return name
    return None


def _walk(node: PyTree, visit: Visit, name: str) -> PyTree:
    if isinstance(node, Frozen):
        return Frozen(_walk(node.net, visit, name))
    if isinstance(node, Condition):
        return Condition(visit(name, node.array), node.shape)
    if isinstance(node, Distribution):
        return _walk_distribution(node, visit, name)

    def visit_leaf(path: tuple[object, ...], leaf: PyTree) -> PyTree:
        below = _join(name, *map(_key, path))
        return _walk(leaf, visit, below) if _is_special(leaf) else visit(below, leaf)

    return jax.tree_util.tree_map_with_path(visit_leaf, node, is_leaf=_is_special)


def _walk_distribution(d: Distribution, visit: Visit, name: str) -> Distribution:
    known = distribution_name(d)
    if known is not None:
        new = {}
        for key, value in parameters(d).items():
            visited = visit(_join(name, key), value)
            is_python_number = not hasattr(getattr(d, key), "dtype")  # a Python number stays one
            new[key] = (
                visited.item() if is_python_number and isinstance(visited, jax.Array) else visited
            )
        return DISTRIBUTIONS[known][0](**new, validate_args=d.__dict__.get("_validate_args"))
    children, aux = d.tree_flatten()
    fields = type(d).gather_pytree_data_fields()  # in an order that differs between processes
    by_field = dict(zip(fields, children, strict=True))
    for field in sorted(fields):
        by_field[field] = _walk(by_field[field], visit, _join(name, field.lstrip("_")))
    return type(d).tree_unflatten(aux, tuple(by_field[field] for field in fields))


def _is_special(node: object) -> bool:
    return isinstance(node, Frozen | Condition | Distribution)


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, Leaf)


def _uniquely(visit: Visit) -> Visit:
    """Number repeated names, so that no two arrays share one."""
    seen: dict[str, int] = {}

    def visit_unique(name: str, leaf: PyTree) -> PyTree:
        count = seen[name] = seen.get(name, 0) + 1
        return visit(name if count == 1 else f"{name}~{count}", leaf)

    return visit_unique


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _key(key: object) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _to_numpy(name: str, leaf: Leaf) -> np.ndarray:
    if isinstance(leaf, Tracer | jax.ShapeDtypeStruct):
        raise PriorFileError(
            message(
                f"The array {name} has no value",
                got=type(leaf).__name__,
                remedy="save outside jit, grad and vmap, where arrays are concrete",
            )
        )
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise PriorFileError(
            message(
                f"The array {name} is a random key, which a file cannot hold",
                remedy="take the key out of the network; a prior needs none",
            )
        )
    return np.array(leaf, order="C")


def to_jax(name: str, array: np.ndarray) -> jax.Array:
    """Convert an array of a file to JAX.

    Raises
    ------
    PrecisionError
        If JAX runs in 32 bits and would round the numbers.
    """
    converted = jnp.asarray(array)
    if converted.dtype != array.dtype and not np.array_equal(converted, array):
        raise PrecisionError(
            message(
                f"The array {name} would lose digits",
                expected="64-bit mode",
                got=f"{array.dtype} in the file, while JAX runs in 32 bits",
                remedy='call jax.config.update("jax_enable_x64", True) first, or save a copy in '
                "32 bits",
            )
        )
    return converted


def _constant_text(constant: object) -> str:
    """A number, a string or a function as text, without a memory address."""
    return _ADDRESS.sub("", repr(constant))


def _same_constant(name: str, leaf: object, constants: Mapping[str, str]) -> None:
    expected = _constant_text(leaf)
    got = _ADDRESS.sub("", str(constants.get(name, expected)))
    if got != expected:
        raise StructureError(
            message(
                f"The constant {name} is another one in the file",
                expected=expected,
                got=got,
                remedy="pass as like= a prior of the same structure as the one that was saved",
            )
        )


def _same_shape(name: str, array: np.ndarray, leaf: Leaf, exact: bool) -> None:
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    same = dtype == leaf.dtype
    if not exact:
        same = _kind(dtype) == _kind(leaf.dtype)
    if array.shape != leaf.shape or not same:
        raise ShapeError(
            message(
                f"The array {name} of the file does not fit",
                expected=f"shape {leaf.shape}, dtype {leaf.dtype}",
                got=f"shape {array.shape}, dtype {array.dtype}",
                remedy="pass as like= a prior of the same sizes and dtypes as the one that was "
                "saved",
            )
        )


def _kind(dtype: DTypeLike) -> str:
    return "inexact" if jnp.issubdtype(dtype, jnp.inexact) else np.dtype(dtype).kind


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    names = sorted(arrays)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
