"""Models with a weaker likelihood, and with a moved event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpyro
from numpyro.primitives import Messenger


@dataclass(frozen=True)
class Tempered:
    """A model of ``(weight, moved, *args)``: the likelihood to a power, events plus something.

    `moved` holds for names of events a pair: what is added, and the value of the latent, which has
    to be given along with it.

    Attributes
    ----------
    model
        The NumPyro model.
    """

    model: Callable[..., Any]

    def __call__(self, weight: jax.Array, moved: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        shifts = {name: shift for name, (shift, _) in moved.items()}
        latents = {f"{name}_latent": latent for name, (_, latent) in moved.items()}
        with _Weighted(weight), _Moved(shifts), numpyro.handlers.substitute(data=latents):
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
