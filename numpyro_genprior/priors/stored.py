"""`StoredPrior`: the parts of a prior in a file, from which a family builds itself."""

from __future__ import annotations

from typing import Any, Protocol

import jax
from numpyro.distributions import Distribution, constraints


class StoredPrior(Protocol):
    """The argument of `Prior._from_file`. Fields are named without their leading underscore."""

    @property
    def latent(self) -> Distribution:
        """The distribution of the latent."""
        ...

    @property
    def support(self) -> constraints.Constraint:
        """The constraint on one number of an event."""
        ...

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        ...

    @property
    def condition(self) -> jax.Array | None:
        """The condition, with its batch dimensions, or None."""
        ...

    @property
    def condition_shape(self) -> tuple[int, ...] | None:
        """Shape of one condition, or None."""
        ...

    @property
    def validate_args(self) -> bool | None:
        """NumPyro's ``validate_args``."""
        ...

    def array(self, field: str) -> Any:
        """A JAX array among ``pytree_data_fields``, or None if the field was None."""
        ...

    def network(self, field: str) -> Any:
        """A `Frozen` network among ``pytree_data_fields``, or None if the field was None."""
        ...

    def static(self, field: str) -> Any:
        """A value of ``pytree_aux_fields``: numbers, strings, and (for tuples too) lists."""
        ...
