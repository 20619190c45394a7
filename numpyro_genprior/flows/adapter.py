"""`FlowAdapter`, the one interface to the bijections of FlowJAX, Distrax and NumPyro."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import jax
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

Flow = TypeVar("Flow")


class FlowAdapter(ABC, Generic[Flow]):
    """How to use the bijections of one library, on one unbatched event.

    Subclasses are final and have no state. `flow` is the user's object, or the result of
    `to_pytree` with its current weights.
    """

    name: ClassVar[str]

    @abstractmethod
    def matches(self, flow: object) -> bool:
        """Whether `flow` belongs to this library."""

    @abstractmethod
    def to_pytree(self, flow: Flow) -> Flow:
        """The same flow as a pytree with all its weights among the leaves."""

    @abstractmethod
    def recompute_cached(self, flow: Flow) -> Flow:
        """Recompute cached quantities (log-determinants, inverses) from the current weights.

        Some libraries store such quantities as separate leaves beside the weights. After training
        they would no longer agree with the weights.
        """

    @abstractmethod
    def latent(self, flow: Flow) -> Distribution | tuple[int, ...] | None:
        """The flow's own base distribution, the shape of a standard normal, or None if unknown."""

    @abstractmethod
    def condition_shape(self, flow: Flow) -> tuple[int, ...] | None:
        """Shape of one condition; None for an unconditional flow."""

    @abstractmethod
    def forward_and_log_det(
        self, flow: Flow, z: Float[Array, "*latent"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*event"], Float[Array, ""]]:
        """Map z to x = T(z), with log abs det dT/dz, in one pass."""

    @abstractmethod
    def inverse_and_log_det(
        self, flow: Flow, x: Float[Array, "*event"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*latent"], Float[Array, ""]]:
        """Map x to z = T⁻¹(x), with log abs det dT⁻¹/dx, in one pass."""

    @abstractmethod
    def support(self, flow: Flow, latent: Distribution) -> constraints.Constraint | None:
        """Image of the support of `latent` under the flow; None if it is unknown."""
