"""Turn the arrays that a function closes over into data."""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PyTree

from numpyro_genprior.networks.static import Static

# Arrays among the globals of these packages are mathematical constants, never weights.
_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy")
_Jitted: Any = type(jax.jit(lambda: None))
_FilterJitted: Any = type(eqx.filter_jit(lambda: None))


@jax.tree_util.register_pytree_node_class
class Closure:
    """A plain function whose captured arrays are pytree children.

    Weights that a function takes from an enclosing scope, from the globals of its module or from
    its default arguments would otherwise become constants of every program compiled from it. Two
    closures made by the same code share a compiled program.
    """

    def __init__(
        self,
        cells: list[PyTree],
        names: dict[str, PyTree],
        defaults: tuple[tuple[PyTree, ...], dict[str, PyTree]],
        code: Static,
    ) -> None:
        self.cells, self.names, self.defaults, self.code = cells, names, defaults, code

    def __call__(self, *args: PyTree, **keywords: PyTree) -> PyTree:
        return self.function(*args, **keywords)

    @property
    def function(self) -> types.FunctionType:
        """A plain function around the current arrays."""
        code, module_globals, name = self.code.value
        scope = {**module_globals.names, **self.names} if self.names else module_globals.names
        cells = tuple(types.CellType(content) for content in self.cells)
        positional, by_keyword = self.defaults
        function = types.FunctionType(code, scope, name, positional, cells)
        function.__kwdefaults__ = by_keyword
        return function

    def tree_flatten(self) -> tuple[tuple[Any, ...], Static]:
        return (self.cells, self.names, self.defaults), self.code

    @classmethod
    def tree_unflatten(cls, code: Static, children: Sequence[Any]) -> Closure:
        cells, names, defaults = children
        return cls(cells, names, defaults, code)

    def __reduce__(self) -> Any:
        return closure_to_pytree, (self.function,)  # cloudpickle keeps only the globals it uses


class _Globals:
    """The globals of a module, compared by identity."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Globals) and self.names is other.names

    def __hash__(self) -> int:
        return id(self.names)


def closure_to_pytree(net: PyTree) -> PyTree:
    """Make the arrays that a function captures leaves of a pytree.

    A superset of ``equinox.internal.closure_to_pytree``, which converts the cells of plain
    functions. This one also converts globals and default arguments, functions under `jax.jit`,
    `jax.vmap` and other wrappers of JAX, bound methods of pytrees, and `functools.partial`. Where
    the arguments of a ``partial`` hold floats, these are the weights, and what the function itself
    closes over (such as the masks of an autoregressive network) stays constant. Anything else, and
    functions that reach no array, are returned as they are.
    """
    return _convert(net, {})


def _convert(net: PyTree, memo: dict[int, tuple[PyTree, PyTree]]) -> PyTree:
    """Convert `net`; `memo` maps an id to (original, converted), so that recursion ends."""
    if id(net) in memo:
        return memo[id(net)][1]
    converted = net
    if isinstance(net, functools.partial):
        converted = _convert_partial(net, memo)
    elif isinstance(net, types.MethodType):
        if holds_arrays(net.__self__):
            converted = jax.tree_util.Partial(net.__func__, net.__self__)
    elif isinstance(net, (_Jitted, _FilterJitted)):
        converted = _convert(net.__wrapped__, memo)
    elif isinstance(net, types.FunctionType):
        memo[id(net)] = net, net  # a function that is reached again during its own conversion
        converted = _convert_function(net, memo)
    memo[id(net)] = net, converted if holds_arrays(converted) else net
    return memo[id(net)][1]


def _convert_partial(net: functools.partial[Any], memo: dict[int, tuple[PyTree, PyTree]]) -> PyTree:
    if holds_arrays((net.args, net.keywords), jnp.inexact):
        return jax.tree_util.Partial(net.func, *net.args, **net.keywords)
    function = _convert(net.func, memo)
    args = [_convert(argument, memo) for argument in net.args]
    keywords = {name: _convert(argument, memo) for name, argument in net.keywords.items()}
    return _convert(lambda *more, **others: function(*args, *more, **{**keywords, **others}), memo)


def _convert_function(
    net: types.FunctionType, memo: dict[int, tuple[PyTree, PyTree]]
) -> types.FunctionType | Closure:
    try:
        contents = [cell.cell_contents for cell in net.__closure__ or ()]
    except ValueError:  # an empty cell: its name is not bound yet
        return net
    cells = [_convert(content, memo) for content in contents]
    names = {}
    if net.__globals__.get("__name__", "").partition(".")[0] not in _LIBRARIES:
        reached = {n: _convert(net.__globals__.get(n), memo) for n in _global_names(net.__code__)}
        names = {name: value for name, value in reached.items() if holds_arrays(value)}
    defaults = tuple(_convert(default, memo) for default in net.__defaults__ or ())
    by_keyword = {n: _convert(default, memo) for n, default in (net.__kwdefaults__ or {}).items()}
    code = Static((net.__code__, _Globals(net.__globals__), net.__name__))
    return Closure(cells, names, (defaults, by_keyword), code)


def _global_names(code: types.CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_global_names, inner))


def holds_arrays(tree: PyTree, dtype: DTypeLike = np.generic) -> bool:
    """Whether a leaf of the pytree is an array whose dtype is a subtype of `dtype`."""
    arrays = (a for a in jax.tree.leaves(tree) if isinstance(a, (jax.Array, np.ndarray)))
    return any(jnp.issubdtype(array.dtype, dtype) for array in arrays)
