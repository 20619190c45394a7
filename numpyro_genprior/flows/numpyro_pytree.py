"""NumPyro transforms whose networks are among their leaves."""

from __future__ import annotations

import functools
from typing import Any

import jax
from numpyro.distributions.transforms import Transform

from numpyro_genprior.networks.closure import holds_arrays, open_closure


def opened_transform(node: Any) -> Any:
    """A transform that flattens all its arrays, and functions of them, among its children.

    NumPyro's autoregressive transforms flatten their network among the static data. The result
    is of a subclass that moves such attributes to the children, at any depth of compositions and
    inverses. What is no transform is opened as a function.
    """
    if not _is_transform(node):
        return open_closure(node)
    children, aux = node.tree_flatten()
    if not _is_numpyro_aux(aux):
        return node
    names, static = aux
    children = jax.tree.map(opened_transform, children, is_leaf=_is_transform)
    opened = {
        k: jax.tree.map(opened_transform, v, is_leaf=_is_transform) for k, v in static.items()
    }
    hidden = {name: value for name, value in opened.items() if holds_arrays(value)}
    kind: Any = type(node)
    if hidden and not isinstance(node, _Opened):  # an opened one has nothing hidden left
        kind, static = _opened_class(kind), {**static, "_hidden": tuple(hidden)}
    return kind.tree_unflatten((names, {**static, **hidden}), children)


class _Opened:
    """In front of a transform class: what ``_hidden`` names is flattened among the children."""

    _hidden: tuple[str, ...]

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        children, (names, static) = super().tree_flatten()  # pyright: ignore
        shown = {name: static[name] for name in self._hidden}
        rest = {name: value for name, value in static.items() if name not in shown}
        return (*children, *shown.values()), ((*names, *shown), {**rest, "_hidden": self._hidden})

    def __reduce__(self) -> Any:
        children, aux = self.tree_flatten()
        return _unflatten, (type(self).__mro__[2], children, aux)


def _unflatten(kind: type[Transform], children: Any, aux: Any) -> Any:
    return _opened_class(kind).tree_unflatten(aux, children)


@functools.cache
def _opened_class(kind: type[Transform]) -> Any:
    return type(kind.__name__, (_Opened, kind), {"__module__": kind.__module__})


def _is_transform(node: Any) -> bool:
    return isinstance(node, Transform)


def _is_numpyro_aux(aux: Any) -> bool:
    """Whether static data have the form of NumPyro's own transforms, (names, dictionary)."""
    return isinstance(aux, tuple) and len(aux) == 2 and isinstance(aux[1], dict)
