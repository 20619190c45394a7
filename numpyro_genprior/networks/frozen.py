"""`Frozen`: a network of any library as a callable pytree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from numpyro_genprior.networks.closure import closure_to_pytree
from numpyro_genprior.networks.convolution import call
from numpyro_genprior.networks.pickling import check_pickles
from numpyro_genprior.networks.static import Static

DATA, STATIC = "data", "static"

Leaf = TypeVar("Leaf")


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _is_inexact(leaf: object) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _classify(leaf: object) -> str:
    if not _is_array(leaf):
        return STATIC
    if _is_inexact(leaf) or isinstance(leaf, Tracer):
        return DATA
    return STATIC


def _freeze(leaf: Leaf) -> Leaf | np.ndarray:
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return np.asarray(leaf)


@jax.tree_util.register_pytree_with_keys_class
class Frozen:
    """A frozen network: any pytree callable with exactly its weights as leaves.

    The leaves of a `Frozen` are the inexact arrays of the network, so that ``jax.grad``,
    ``jax.jit``, ``jax.vmap``, ``jax.tree.map`` and optimisers apply to it directly. Integer
    arrays (permutations, masks) are part of the static data and compared by content: they take
    part in the computation but not in differentiation. The tree structure and everything else are
    static, compared by content where that is possible. Arrays that a plain function closes over
    are leaves too.

    A network is unbatched: it maps a latent of shape ``latent_shape`` (and a condition, if it
    takes one) to one event. It computes in the widest of the dtypes of its weights and inputs:
    float32 weights meet a float64 latent in float64.

    Parameters
    ----------
    net
        An Equinox module, a plain function, the result of `from_haiku`, `from_flax` or
        `from_nnx`, a FlowJAX or Distrax bijection, a NumPyro transform, or any other pytree.

    Notes
    -----
    **Fails when** the network keeps its weights where JAX cannot see them (attributes of a plain
    Python object): they become constants of the compiled program.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from numpyro_genprior.networks import Frozen
    >>> weights = jnp.ones((3, 2))
    >>> net = Frozen(lambda z: weights @ z)
    >>> net(jnp.ones(2)), [leaf.shape for leaf in jax.tree.leaves(net)]
    (Array([2., 2., 2.], dtype=float32), [(3, 2)])
    """

    __slots__ = ("_data", "_static")

    def __init__(self, net: PyTree) -> None:
        if isinstance(net, Frozen):
            self._data, self._static = net._data, net._static
            return
        leaves, treedef = jax.tree.flatten(closure_to_pytree(net))
        kinds = tuple(_classify(leaf) for leaf in leaves)
        self._data = tuple(leaf for leaf, kind in zip(leaves, kinds, strict=True) if kind == DATA)
        rest = tuple(
            _freeze(leaf) for leaf, kind in zip(leaves, kinds, strict=True) if kind == STATIC
        )
        self._static = Static((treedef, kinds, rest))

    @property
    def net(self) -> Any:
        """The network itself, rebuilt around the current weights."""
        return self._rebuild(self._data)

    def promoted(self, *arguments: PyTree) -> Any:
        """The network in the widest of the dtypes of its weights and of `arguments`."""
        dtype = self.dtype(*arguments)
        return self._rebuild(tuple(promote(leaf, dtype) for leaf in self._data))

    def dtype(self, *arguments: PyTree) -> np.dtype:
        """The dtype in which the network computes when called with `arguments`."""
        arrays = [leaf for leaf in (*self._data, *arguments) if _is_inexact(leaf)]
        return jnp.result_type(*arrays) if arrays else jnp.result_type(float)

    def __call__(self, *arguments: PyTree) -> Any:
        return call(Frozen._apply, self, *arguments)

    def _apply(self, *arguments: PyTree) -> Any:
        dtype = self.dtype(*arguments)
        return self.promoted(*arguments)(*(promote(a, dtype) for a in arguments))

    def select(self, excluded: Callable[[Any], bool]) -> list[bool]:
        """For each leaf, whether it lies outside every node for which `excluded` is true."""
        nodes = jax.tree.leaves(self.net, is_leaf=excluded)
        marks = [not excluded(node) for node in nodes for _ in jax.tree.leaves(node)]
        _, kinds, _ = self._static.value
        return [mark for mark, kind in zip(marks, kinds, strict=True) if kind == DATA]

    def _rebuild(self, data: tuple[Any, ...]) -> Any:
        treedef, kinds, rest = self._static.value
        data_, rest_ = iter(data), iter(rest)
        leaves = [next(data_) if kind == DATA else _thaw(next(rest_)) for kind in kinds]
        return jax.tree.unflatten(treedef, leaves)

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], Static]:
        keys = map(jax.tree_util.SequenceKey, range(len(self._data)))
        return tuple(zip(keys, self._data, strict=False)), self._static

    def tree_flatten(self) -> tuple[tuple[Any, ...], Static]:
        return self._data, self._static

    @classmethod
    def tree_unflatten(cls, static: Static, data: Sequence[Any]) -> Frozen:
        self = object.__new__(cls)
        self._data, self._static = tuple(data), static
        return self

    def __repr__(self) -> str:
        return f"Frozen({self.net!r})"

    def __copy__(self) -> Frozen:
        return Frozen(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        data = tuple(leaf.copy() if _is_array(leaf) else leaf for leaf in self._data)
        return Frozen.tree_unflatten(self._static, data)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        net = self.net
        check_pickles(net)
        return Frozen, (net,)


def _thaw(leaf: Leaf) -> Leaf | jax.Array:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def promote(leaf: PyTree, dtype: np.dtype) -> PyTree:
    """Cast an inexact array to `dtype`; return any other leaf as it is."""
    if not _is_inexact(leaf) or leaf.dtype == dtype:
        return leaf
    return jnp.asarray(leaf).astype(dtype)
