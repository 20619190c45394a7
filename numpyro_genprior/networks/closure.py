"""Turn the arrays that a function closes over into data."""

from __future__ import annotations

import functools
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.networks.static import Static

# The globals of these packages are constants of mathematics, and nobody's weights.
_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy")
_Jitted: Any = type(jax.jit(lambda: None))
_FilterJitted: Any = type(eqx.filter_jit(lambda: None))


@jax.tree_util.register_pytree_node_class
class Closure:
    """A plain function whose outside arrays are pytree children.

    Weights that a ``lambda`` finds in an enclosing scope, among the globals of its module or in
    its default arguments would otherwise become constants of every program that is compiled from
    it. Two closures made by the same code are one program with two sets of weights.
    """

    def __init__(self, cells: list[Any], names: dict[str, Any], defaults: Any, code: Static):
        self.cells, self.names, self.defaults, self.code = cells, names, defaults, code

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.function(*args, **keywords)

    @property
    def function(self) -> Any:
        """A plain function again, around the present arrays."""
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
    def tree_unflatten(cls, code: Static, children: Any) -> Closure:
        cells, names, defaults = children
        return cls(cells, names, defaults, code)

    def __reduce__(self) -> Any:
        return open_closure, (self.function,)  # of its module cloudpickle then keeps what it uses


class _Globals:
    """The globals of a module, compared by identity."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Globals) and self.names is other.names

    def __hash__(self) -> int:
        return id(self.names)


def open_closure(net: Any) -> Any:
    """Make the arrays inside a function visible to JAX.

    Opened are plain functions, also under `jax.jit`, `jax.vmap` and their like, bound methods of
    pytrees, and `functools.partial`. Where the arguments of a ``partial`` hold floats, these are
    the weights, and what the function itself closes over (the masks of an autoregressive
    network, say) stays constant. Anything else, and functions that reach no array, are returned
    as they are.
    """
    return _opened(net, {})


def _opened(net: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """Opened `net`; `seen` has pairs of it by identity, a function at work paired with itself."""
    if id(net) in seen:
        return seen[id(net)][1]
    opened = net
    if isinstance(net, functools.partial):
        opened = _open_partial(net, seen)
    elif isinstance(net, types.MethodType):
        if holds_arrays(net.__self__):
            opened = jax.tree_util.Partial(net.__func__, net.__self__)
    elif isinstance(net, (_Jitted, _FilterJitted)):
        opened = _opened(net.__wrapped__, seen)
    elif isinstance(net, types.FunctionType):
        seen[id(net)] = net, net
        opened = _open_function(net, seen)
    seen[id(net)] = net, opened if holds_arrays(opened) else net
    return seen[id(net)][1]


def _open_partial(net: functools.partial[Any], seen: dict[int, tuple[Any, Any]]) -> Any:
    if holds_arrays((net.args, net.keywords), jnp.inexact):
        return jax.tree_util.Partial(net.func, *net.args, **net.keywords)
    function = _opened(net.func, seen)
    args = [_opened(argument, seen) for argument in net.args]
    keywords = {name: _opened(argument, seen) for name, argument in net.keywords.items()}
    return _opened(lambda *more, **others: function(*args, *more, **{**keywords, **others}), seen)


def _open_function(net: types.FunctionType, seen: dict[int, tuple[Any, Any]]) -> Any:
    try:
        contents = [cell.cell_contents for cell in net.__closure__ or ()]
    except ValueError:  # an empty cell: the function refers to a name that is not bound yet
        return net
    cells = [_opened(content, seen) for content in contents]
    names = {}
    if net.__globals__.get("__name__", "").partition(".")[0] not in _LIBRARIES:
        reached = {n: _opened(net.__globals__.get(n), seen) for n in _global_names(net.__code__)}
        names = {name: value for name, value in reached.items() if holds_arrays(value)}
    defaults = tuple(_opened(default, seen) for default in net.__defaults__ or ())
    by_keyword = {n: _opened(default, seen) for n, default in (net.__kwdefaults__ or {}).items()}
    code = Static((net.__code__, _Globals(net.__globals__), net.__name__))
    return Closure(cells, names, (defaults, by_keyword), code)


def _global_names(code: types.CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_global_names, inner))


def holds_arrays(tree: Any, dtype: Any = np.generic) -> bool:
    """Whether an array, of this kind, is among the leaves of a pytree."""
    arrays = (a for a in jax.tree.leaves(tree) if isinstance(a, (jax.Array, np.ndarray)))
    return any(jnp.issubdtype(array.dtype, dtype) for array in arrays)
