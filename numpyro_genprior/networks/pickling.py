"""Whether pickle and cloudpickle can restore a network correctly."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import PyTree


def check_pickles(net: PyTree) -> None:
    """Raise an error for a network that the running pickler cannot restore correctly.

    Raises
    ------
    TypeError
        If so; the message names `ngp.save`, which keeps any prior.
    """
    try:
        if _hides_module(jax.tree.leaves(net)):
            raise TypeError("a function inside it closes over an Equinox module")
        _active_pickler().dumps(net)
    except Exception as error:
        raise TypeError(
            f"A network of type {type(net).__name__} cannot be pickled ({error}). "
            "Keep the prior with ngp.save(path, prior) and read it with ngp.load."
        ) from error


def _hides_module(values: Sequence[PyTree], seen: tuple[types.FunctionType, ...] = ()) -> bool:
    """Whether a plain function among `values` closes over an Equinox module.

    FlowJAX's couplings keep their transformer in this way. Equinox marks missing fields by a
    sentinel that it compares by identity. Inside a function cloudpickle copies the sentinel, and
    the copied flow raises, or no longer matches its own structure, when it is called.
    """
    for function in values:
        if not isinstance(function, types.FunctionType) or any(function is f for f in seen):
            continue
        cells = [c.cell_contents for c in function.__closure__ or () if _is_bound(c)]
        inside = jax.tree.leaves(cells, is_leaf=lambda node: isinstance(node, eqx.Module))
        if any(isinstance(node, eqx.Module) for node in inside):
            return True
        if _hides_module(inside, (*seen, function)):
            return True
    return False


def _is_bound(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _active_pickler() -> types.ModuleType:
    """Cloudpickle if it is the one that is pickling now (it can hold lambdas), else pickle."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "cloudpickle":
            return sys.modules["cloudpickle"]
        frame = frame.f_back
    return pickle
