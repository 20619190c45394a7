"""Handlers that weaken a model's likelihood and move its events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpyro
from numpyro.primitives import Messenger


@dataclass(frozen=True)
class Tempered:
    """A model of ``(weight, moved, *args)``: its likelihood to the power `weight`, events moved.

    `moved` maps the name of an event to a pair: the array to add, and the value of the event's
    latent, which has to be given along with it.

    Attributes
    ----------
    model
        The NumPyro model.
    """

    model: Callable[..., Any]

    def __call__(
        self,
        weight: jax.Array,
        moved: Mapping[str, tuple[jax.Array, jax.Array]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        shifts = {name: shift for name, (shift, _) in moved.items()}
        latents = {f"{name}_latent": latent for name, (_, latent) in moved.items()}
        with _Weighted(weight), _Moved(shifts), numpyro.handlers.substitute(data=latents):
            return self.model(*args, **kwargs)


class _Weighted(Messenger):
    """Multiplies the log density of data; for normal noise its sd becomes ``sd / √weight``."""

    def __init__(self, weight: jax.Array) -> None:
        self.weight = weight
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["is_observed"]:
            own = msg["scale"]
            msg["scale"] = self.weight if own is None else own * self.weight


class _Moved(Messenger):
    """Adds an array to events that are functions of their latent."""

    def __init__(self, moved: dict[str, jax.Array]) -> None:
        self.moved = moved
        super().__init__()

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "deterministic" and msg["name"] in self.moved:
            msg["value"] = msg["value"] + self.moved[msg["name"]]
