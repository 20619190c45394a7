"""The hooks that a family of priors overrides, with a default for each.

Each method is written for one latent or one event and one condition (or None); `Prior` maps them
over batches. `Prior` describes when each of them is called.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal, Self

import jax
from jaxtyping import PyTree
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.priors.stored import StoredPrior

Density = Literal["exact", "conditional", "none"]


class PriorHooks(Distribution):
    """The hooks; only `_decode` has no default. Families subclass `Prior`."""

    density: Density = "none"
    no_density: str = "events have no density. Put @ngp.latent on the model to infer the latent."
    no_fisher: str | None = None
    fisher_constants: tuple[str, ...] = ()
    trainable_fields: tuple[str, ...] = ()
    scale_field: str | None = None

    @abstractmethod
    def _decode(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        """g: one latent (and one condition, or None) to one event."""
        raise NotImplementedError(
            message(
                f"{type(self).__name__} has no _decode",
                expected="a subclass of Prior that decodes one latent to one event",
                remedy="write _decode(self, z, condition), or use GANPrior(net, latent)",
            )
        )

    def _log_prob(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        """Log density of one event, for priors whose density is exact."""
        raise self._without_density("log_prob")

    def _log_prob_of_draw(self, *intermediates: jax.Array) -> jax.Array:
        """Log density of a draw, from the intermediates of ``sample_with_intermediates``."""
        raise NotImplementedError(f"{type(self).__name__} gives no intermediates with its draws.")

    def _event_loc_scale(
        self, z: jax.Array, condition: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of one event given its latent, for priors whose density is
        conditional.
        """
        raise NotImplementedError(
            message(
                f"{type(self).__name__}: given the latent, the event has no density",
                remedy="use prior.decode(z), which is the event",
            )
        )

    def _inverse(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        """A latent z with ``_decode(z, condition) == x``; of several, that of least norm."""
        raise NotImplementedError(
            message(
                f"{type(self).__name__} does not say which latent gives an event",
                expected="a family that has an inverse, _inverse(self, x, condition)",
                remedy="decorate the model with @ngp.latent(explicit=True) and give x_latent",
            )
        )

    @property
    def encoder(self) -> Callable[..., tuple[jax.Array, jax.Array]] | None:
        """A network of one event (and optionally one condition) that returns ``(loc, scale)``
        of a normal distribution over the latent; None if there is none.
        """
        return None

    @property
    def event_scale(self) -> jax.Array | None:
        """Standard deviation of the decoder noise; None if there is none or it is not constant."""
        return None

    def _fisher_parameters(self, condition: jax.Array | None) -> PyTree:
        """Parameters θ of the distribution of one observed event: a pytree of float arrays."""
        raise NotImplementedError(f"{type(self).__name__} does not state a Fisher information.")

    def _fisher_root(self, tangent: PyTree, condition: jax.Array | None) -> PyTree:
        """``F(θ)^(1/2) dθ`` for a tangent like θ: arrays w with ``|w|² = dθᵀ F dθ``, linear in dθ.

        Any square root of the information ``F = E[∇log p ∇log pᵀ]`` will do.
        """
        raise NotImplementedError(f"{type(self).__name__} does not state a Fisher information.")

    @classmethod
    def _from_file(cls, stored: StoredPrior) -> Self:
        """Build a prior from the parts that a file holds."""
        raise NotImplementedError(f"{cls.__name__} does not say how a file builds it.")

    def _without_density(self, method: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__}.{method}: {self.no_density}")
