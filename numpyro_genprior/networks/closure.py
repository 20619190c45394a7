"""Turn the arrays that a plain function closes over into data."""

from __future__ import annotations

import functools
import types
from typing import Any

import jax
import numpy as np

from numpyro_genprior.networks.static import Static


@jax.tree_util.register_pytree_node_class
class Closure:
    """A plain function whose outside arrays are pytree children.

    Weights that a ``lambda`` finds in an enclosing scope, among the globals of its module or in
    its default arguments would otherwise become constants of every program that is compiled from
    it. Two closures made by the same code are one program with two sets of weights.
    """

    def __init__(self, cells: list[Any], names: dict[str, Any], defaults: Any, code: Static):
        self.cells, self.names, self.defaults, self.code = cells, names, defaults, code

    def __call__(self, *args: Any) -> Any:
        code, module_globals, name, keyword_defaults = self.code.value
        scope = {**module_globals.names, **self.names} if self.names else module_globals.names
        cells = tuple(types.CellType(content) for content in self.cells)
        function: Any = types.FunctionType(
            code, scope, name=name, argdefs=self.defaults, closure=cells
        )
        function.__kwdefaults__ = keyword_defaults
        return function(*args)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Static]:
        return (self.cells, self.names, self.defaults), self.code

    @classmethod
    def tree_unflatten(cls, code: Static, children: Any) -> Closure:
        cells, names, defaults = children
        return cls(cells, names, defaults, code)


class _Globals:
    """The globals of a module, compared by identity."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Globals) and self.names is other.names

    def __hash__(self) -> int:
        return id(self.names)


def open_closure(net: Any, _seen: tuple[Any, ...] = ()) -> Any:
    """Make the arrays inside a plain function or a `functools.partial` visible to JAX.

    Anything else, and functions that reach no array, are returned as they are.
    """
    if isinstance(net, functools.partial) and not isinstance(net, jax.tree_util.Partial):
        return jax.tree_util.Partial(net.func, *net.args, **net.keywords)
    if not isinstance(net, types.FunctionType) or any(net is other for other in _seen):
        return net
    seen = (*_seen, net)
    try:
        cells = [open_closure(cell.cell_contents, seen) for cell in net.__closure__ or ()]
    except ValueError:  # an empty cell: the function refers to a name that is not bound yet
        return net
    names = {
        name: value
        for name in _global_names(net.__code__)
        if _holds_arrays(value := open_closure(net.__globals__.get(name), seen))
    }
    if not _holds_arrays((cells, names, net.__defaults__)):
        return net
    scope = _Globals(net.__globals__)
    code = Static((net.__code__, scope, net.__name__, net.__kwdefaults__))
    return Closure(cells, names, net.__defaults__, code)


def _global_names(code: types.CodeType) -> set[str]:
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_global_names, inner))


def _holds_arrays(tree: Any) -> bool:
    return any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(tree))
