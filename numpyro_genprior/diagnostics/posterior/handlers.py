"""Models with a weaker likelihood, and with a moved event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from numpyro.primitives import Messenger


@dataclass(frozen=True)
class Tempered:
    """A model of ``(weight, shifts, *args)``: the likelihood to a power, and events shifted.

    `shifts` holds, by name of an event that is a function of its latent, what is added to it.

    Attributes
    ----------
    model
        The NumPyro model.
    """

    model: Callable[..., Any]

    def __call__(
        self, weight: jax.Array, shifts: dict[str, jax.Array], *args: Any, **kwargs: Any
    ) -> Any:
        with _Weighted(weight), _Moved(shifts):
            return self.model(*args, **kwargs)


class _Weighted(Messenger):
    """The log density of data times a weight: for normal noise, noise of ``sd / √weight``."""

    def __init__(self, weight: jax.Array) -> None:
        self.weight = weight
        super().__init__()

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["is_observed"]:
            own = msg["scale"]
            msg["scale"] = self.weight if own is None else own * self.weight


class _Moved(Messenger):
    """Events that are functions of their latent, plus an array."""

    def __init__(self, moved: dict[str, jax.Array]) -> None:
        self.moved = moved
        super().__init__()

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "deterministic" and msg["name"] in self.moved:
            msg["value"] = msg["value"] + self.moved[msg["name"]]
