"""Static pytree data that compares by content and never fails to hash."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


def _same(a: object, b: object) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    try:
        return bool(a == b)
    except Exception:  # `==` raises or gives an array: treat them as different
        return False


def _hash(a: object) -> int:
    if isinstance(a, np.ndarray):
        return hash((a.shape, a.dtype.str, a.tobytes()))
    if isinstance(a, (tuple, list)):
        return hash(tuple(map(_hash, a)))
    try:
        return hash(a)
    except TypeError:
        return hash(type(a))


class Static(Generic[T]):
    """A value for the auxiliary data of a pytree.

    JAX calls ``hash`` and ``==`` of auxiliary data at every call of a jitted function. Tree
    definitions of FlowJAX, Distrax and NumPyro transforms often support neither (they hold lists,
    dictionaries or arrays). `Static` compares arrays and sequences by content, falls back to
    identity where ``==`` fails, and to the type where ``hash`` fails: a wrong guess costs a
    retrace and never a wrong answer.
    """

    __slots__ = ("_hashed", "value")

    def __init__(self, value: T) -> None:
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

    def __getstate__(self) -> tuple[T]:
        return (self.value,)

    def __setstate__(self, state: tuple[T]) -> None:
        (self.value,) = state
        self._hashed = None
