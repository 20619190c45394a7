"""NumPyro transforms as pytrees whose networks are among the leaves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import jax
from numpyro.distributions.transforms import Transform

from numpyro_genprior.networks.closure import closure_to_pytree, holds_arrays

Node = TypeVar("Node")


def transform_to_pytree(node: Node) -> Node:
    """A transform that flattens all its arrays, and functions of them, among its children.

    NumPyro's autoregressive transforms flatten their network among the static data. The result
    is an instance of a subclass that moves such attributes to the children, at any depth of
    compositions and inverses. A node that is not a transform is treated as a function.
    """
    if not isinstance(node, Transform):
        return closure_to_pytree(node)
    children, aux = node.tree_flatten()
    if not _is_numpyro_aux(aux):
        return node
    names, static = aux
    convert = functools.partial(jax.tree.map, transform_to_pytree, is_leaf=_is_transform)
    children = convert(children)
    converted = {name: convert(value) for name, value in static.items()}
    hidden = {name: value for name, value in converted.items() if holds_arrays(value)}
    cls: Any = type(node)
    if hidden and not isinstance(node, _PytreeTransform):  # else nothing is hidden any more
        cls, static = _pytree_class(cls), {**static, "_hidden": tuple(hidden)}
    return cls.tree_unflatten((names, {**static, **hidden}), children)


class _PytreeTransform(Transform if TYPE_CHECKING else object):
    """Mixin before a transform class: flattens the attributes in ``_hidden`` among the children."""

    _hidden: tuple[str, ...]

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], dict[str, Any]]]:
        children, (names, static) = super().tree_flatten()
        shown = {name: static[name] for name in self._hidden}
        rest = {name: value for name, value in static.items() if name not in shown}
        return (*children, *shown.values()), ((*names, *shown), {**rest, "_hidden": self._hidden})

    def __reduce__(self) -> Any:
        children, aux = self.tree_flatten()
        return _unflatten, (type(self).__mro__[2], children, aux)


def _unflatten(
    cls: type[Transform],
    children: Sequence[Any],
    aux: tuple[tuple[str, ...], dict[str, Any]],
) -> Transform:
    return _pytree_class(cls).tree_unflatten(aux, children)


@functools.cache
def _pytree_class(cls: type[Transform]) -> Any:
    return type(cls.__name__, (_PytreeTransform, cls), {"__module__": cls.__module__})


def _is_transform(node: object) -> bool:
    return isinstance(node, Transform)


def _is_numpyro_aux(aux: object) -> bool:
    """Whether static data have the form of NumPyro's own transforms, (names, dictionary)."""
    return isinstance(aux, tuple) and len(aux) == 2 and isinstance(aux[1], dict)
