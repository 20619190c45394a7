"""Static pytree data that compares by content and never fails to hash."""

from __future__ import annotations

from typing import Any

import numpy as np


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    try:
        return bool(a == b)
    except Exception:  # an `==` that raises or gives an array says nothing: treat as different
        return False


def _hash(a: Any) -> int:
    if isinstance(a, np.ndarray):
        return hash((a.shape, a.dtype.str, a.tobytes()))
    if isinstance(a, (tuple, list)):
        return hash(tuple(map(_hash, a)))
    try:
        return hash(a)
    except TypeError:
        return hash(type(a))


class Static:
    """A value for the auxiliary data of a pytree.

    JAX asks auxiliary data for ``hash`` and ``==`` on every call of a jitted function. Tree
    definitions of FlowJAX, Distrax and NumPyro transforms often have neither (they hold lists,
    dictionaries or arrays). `Static` compares arrays and sequences by content, falls back to
    identity where ``==`` fails, and to the type where ``hash`` fails: a wrong guess costs a
    retrace and never a wrong answer.
    """

    __slots__ = ("_hashed", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._hashed: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and _same(self.value, other.value)

    def __hash__(self) -> int:
        if self._hashed is None:
            self._hashed = _hash(self.value)
        return self._hashed

    def __repr__(self) -> str:
        return f"Static({self.value!r})"

    def __getstate__(self) -> Any:
        return (self.value,)

    def __setstate__(self, state: Any) -> None:
        (self.value,) = state
        self._hashed = None
