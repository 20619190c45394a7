"""Handlers that weaken a model's likelihood and move its events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from numpyro.primitives import Messenger


@dataclass(frozen=True)
class Tempered:
    """A model of ``(weight, shifts, *args)``: its likelihood to the power `weight`, events shifted.

    `shifts` maps names of events that are functions of their latent to arrays that are added to
    them.

    Attributes
    ----------
    model
        The NumPyro model.
    """

    model: Callable[..., Any]

    def __call__(
        self, weight: jax.Array, shifts: Mapping[str, jax.Array], *args: Any, **kwargs: Any
    ) -> Any:
        with _Weighted(weight), _Moved(shifts):
            return self.model(*args, **kwargs)


class _Weighted(Messenger):
    """Multiplies the log density of data; for normal noise its sd becomes ``sd / √weight``."""

    def __init__(self, weight: jax.Array) -> None:
        self.weight = weight
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["is_observed"]:
            scale = msg["scale"]
            msg["scale"] = self.weight if scale is None else scale * self.weight


class _Moved(Messenger):
    """Adds an array to events that are functions of their latent."""

    def __init__(self, shifts: Mapping[str, jax.Array]) -> None:
        self.shifts = shifts
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "deterministic" and msg["name"] in self.shifts:
            msg["value"] = msg["value"] + self.shifts[msg["name"]]
