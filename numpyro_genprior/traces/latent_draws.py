"""`LatentDraws`: many draws of a prior's latent, in batches of equal size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.infer.host_batching import batches, draws_per_batch
from numpyro_genprior.priors import Prior
from numpyro_genprior.sites.wrappers import unwrap


class LatentBatch(NamedTuple):
    """Rows 0 to `count` of `z` are the draws from number `start`; the others are padding."""

    start: int
    count: int
    z: np.ndarray
    condition: np.ndarray | None


class LatentDraws:
    """Latents as a stack of draws, to be decoded batch by batch.

    Parameters
    ----------
    prior
        A prior, possibly inside ``expand``, ``mask`` or ``to_event``.
    z
        Latents of shape ``draws + batch + latent_shape``.
    condition
        A condition for every draw, or None for the prior's own.
    batch_size
        Draws on the device at a time; None chooses by the size of an event.
    caller
        Name of the public function, for messages.

    Attributes
    ----------
    prior
        The prior without wrappers.
    number
        Number of draws.
    draws_shape, inner_shape
        Leading dimensions of draws (chains, draws), and of the prior's batch.
    event_shape
        Shape of what is decoded for one draw: the batch, then the event.
    """

    def __init__(
        self,
        prior: Distribution,
        z: ArrayLike,
        condition: ArrayLike | None,
        batch_size: int | None,
        caller: str,
    ) -> None:
        self.prior = require_prior(prior, caller)
        latents = np.asarray(z)
        latent_shape = self.prior.latent.event_shape
        lead = latents.ndim - len(latent_shape)
        if lead < 0 or latents.shape[lead:] != latent_shape:
            raise ValueError(
                message(
                    f"{caller}: these are not latents of this prior",
                    expected=f"shape (..., {', '.join(map(str, latent_shape))})",
                    got=latents.shape,
                    remedy="pass the draws of site x_latent, mcmc.get_samples()['x_latent']",
                )
            )
        inner_ndim = len(prior.shape()) - self.prior.event_dim
        lead_shape = latents.shape[:lead]
        own = None if self.prior.condition is None else np.asarray(self.prior.condition)
        if condition is not None:
            own = self._condition_of_draws(condition, lead_shape, caller)
            lead_shape = np.broadcast_shapes(lead_shape, self._leading(own))
        elif own is not None:
            lead_shape = np.broadcast_shapes(lead_shape, self._leading(own))
        split = max(len(lead_shape) - inner_ndim, 0)
        self.draws_shape, self.inner_shape = lead_shape[:split], lead_shape[split:]
        by_draw = condition is not None
        if not self.draws_shape and self.inner_shape:  # no draws: use the batch in their place
            self.flat_shape, self.axes = lead_shape, ()
            by_draw = own is not None and self._leading(own) != ()
        else:
            self.flat_shape, self.axes = self.draws_shape, self.inner_shape
        self.number = math.prod(self.flat_shape)
        self._z = _stack(latents, lead_shape, latent_shape, self.number, self.axes)
        self._condition = None
        shape = self.prior.condition_shape
        if by_draw and own is not None and shape is not None:
            self._condition = _stack(own, lead_shape, shape, self.number, self.axes)
        self.event_shape = (*self.axes, *self.prior.event_shape)
        self.batch_size = self._batch_size(batch_size, caller)

    def _leading(self, condition: np.ndarray) -> tuple[int, ...]:
        return condition.shape[: condition.ndim - len(self.prior.condition_shape or ())]

    def _condition_of_draws(
        self, condition: ArrayLike, lead: tuple[int, ...], caller: str
    ) -> np.ndarray:
        self.prior.given(condition)  # raises if the condition itself is wrong
        array = np.asarray(condition)
        leading = self._leading(array)
        if len(leading) < len(lead) and leading == lead[: len(leading)]:
            ones = (1,) * (len(lead) - len(leading))
            array = array.reshape(*leading, *ones, *array.shape[len(leading) :])
            leading = self._leading(array)
        try:
            np.broadcast_shapes(leading, lead)
        except ValueError as error:
            raise ValueError(
                message(
                    f"{caller}: the conditions do not match the latents",
                    expected=f"one condition for each draw, leading dimensions {lead}",
                    got=leading,
                    remedy="pass latents and conditions of the same draws, in the same layout",
                )
            ) from error
        return array

    def _batch_size(self, batch_size: int | None, caller: str) -> int:
        size = draws_per_batch(caller, batch_size, math.prod(self.event_shape))
        return max(1, min(size, self.number))

    def batches(self) -> Iterator[LatentBatch]:
        """The draws in batches of one size, the last one padded with its own draws."""
        for rows in batches(self.number, self.batch_size):
            condition = None if self._condition is None else rows.take(self._condition)
            yield LatentBatch(rows.start, rows.count, rows.take(self._z), condition)


def require_prior(prior: Distribution, caller: str) -> Prior:
    core = unwrap(prior)
    if not isinstance(prior, Distribution) or not isinstance(core, Prior):
        raise TypeError(
            message(
                f"{caller}: the first argument is not a generative prior",
                expected="an ngp.Prior",
                got=type(core).__name__,
                remedy="pass the prior first and its latents second",
            )
        )
    return core


def _stack(
    array: np.ndarray,
    lead: tuple[int, ...],
    element: tuple[int, ...],
    number: int,
    axes: tuple[int, ...],
) -> np.ndarray:
    """One row for each draw, shape ``(number, *axes, *element)``; `array` is repeated if needed."""
    own = array.shape[: array.ndim - len(element)]
    if own == lead:
        return array.reshape(number, *axes, *element)
    return np.broadcast_to(array, (*lead, *element)).reshape(number, *axes, *element)


def with_condition(prior: Prior, condition: jax.Array | None) -> Prior:
    """The prior with the conditions of a batch of draws, if there are any."""
    return prior if condition is None else prior.given(condition)


def to_device(condition: np.ndarray | None) -> jax.Array | None:
    """The conditions of a batch on the device, if there are any."""
    return None if condition is None else jnp.asarray(condition)
