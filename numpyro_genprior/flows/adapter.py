"""One interface to bijections from FlowJAX, Distrax and NumPyro."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import jax
from numpyro.distributions import Distribution, constraints


class Adapter:
    """How to use the bijections of one library, unbatched. Stateless: a namespace.

    `flow` is the user's own object, or what `opened` made of it, with its present weights.
    """

    name: str

    @staticmethod
    @abstractmethod
    def matches(flow: Any) -> bool:
        """Whether `flow` belongs to this library."""

    @staticmethod
    @abstractmethod
    def opened(flow: Any) -> Any:
        """The same flow as a pytree with all its weights among the leaves."""

    @staticmethod
    @abstractmethod
    def settled(flow: Any) -> Any:
        """The same flow with what follows from its weights worked out from them anew.

        Libraries keep results beside the weights (a log determinant, an inverse), as leaves of
        their own. After training these would no longer belong together.
        """

    @staticmethod
    @abstractmethod
    def latent(flow: Any) -> Distribution | tuple[int, ...] | None:
        """The flow's own base law, or the shape of a standard normal, or None if it has neither."""

    @staticmethod
    @abstractmethod
    def condition_shape(flow: Any) -> tuple[int, ...] | None:
        """Shape of one condition; None for a flow without one."""

    @staticmethod
    @abstractmethod
    def forward(flow: Any, z: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        """Map z to x = T(z), with log abs det dT/dz, in one pass."""

    @staticmethod
    @abstractmethod
    def inverse(flow: Any, x: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        """Map x to z = T⁻¹(x), with log abs det dT⁻¹/dx, in one pass."""

    @staticmethod
    @abstractmethod
    def support(flow: Any, latent: Distribution) -> constraints.Constraint | None:
        """Image of the latent's support, None when it cannot be told."""
