"""`decode`: latents to events on the host, a batch of draws at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.infer.host_batching import batches, draws_per_batch
from numpyro_genprior.priors import Prior
from numpyro_genprior.sites.wrappers import unwrap


class Batch(NamedTuple):
    """Some draws: the first `count` of `z` are draws number `start` and on, the rest padding."""

    start: int
    count: int
    z: np.ndarray
    condition: np.ndarray | None


class Draws:
    """Latents as a stack of draws, with what is needed to decode them batch by batch.

    Parameters
    ----------
    prior
        A prior, possibly expanded, masked or made an event.
    z
        Latents of shape ``draws + batch + latent_shape``.
    condition
        None, or a condition for every draw.
    batch_size
        Draws on the device at a time; None chooses by the size of an event.
    caller
        Name of the public function, for messages.
    """

    def __init__(
        self,
        prior: Any,
        z: ArrayLike,
        condition: ArrayLike | None,
        batch_size: int | None,
        caller: str,
    ) -> None:
        self.prior = _prior(prior, caller)
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
        held, lead_shape = self.prior.condition, latents.shape[:lead]
        own = None if held is None else np.asarray(held)
        if condition is not None:
            own = self._condition_of_draws(condition, lead_shape, caller)
            lead_shape = np.broadcast_shapes(lead_shape, self._leading(own))
        elif own is not None:
            lead_shape = np.broadcast_shapes(lead_shape, self._leading(own))
        split = max(len(lead_shape) - inner_ndim, 0)
        self.draws_shape, self.inner_shape = lead_shape[:split], lead_shape[split:]
        by_draw = condition is not None
        if not self.draws_shape and self.inner_shape:  # a batch alone: stream over the batch
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
        self.prior.given(condition)  # says what is wrong with it, when anything is
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
                    f"{caller}: the conditions do not go with the latents",
                    expected=f"one condition a draw, leading dimensions {lead}",
                    got=leading,
                    remedy="pass latents and conditions of the same draws, in the same layout",
                )
            ) from error
        return array

    def _batch_size(self, batch_size: int | None, caller: str) -> int:
        size = draws_per_batch(caller, batch_size, math.prod(self.event_shape))
        return max(1, min(size, self.number))

    def batches(self) -> Iterator[Batch]:
        """The draws in batches of one size, the last one padded with its own draws."""
        for rows in batches(self.number, self.batch_size):
            condition = None if self._condition is None else rows.take(self._condition)
            yield Batch(rows.start, rows.count, rows.take(self._z), condition)


def _prior(prior: Any, caller: str) -> Prior:
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
    """One row a draw: ``(number, *axes, *element)``, repeated where `array` has no draws."""
    own = array.shape[: array.ndim - len(element)]
    if own == lead:
        return array.reshape(number, *axes, *element)
    return np.broadcast_to(array, (*lead, *element)).reshape(number, *axes, *element)


def given(prior: Prior, condition: jax.Array | None) -> Prior:
    """The prior of a batch of draws, under `jax.jit`."""
    return prior if condition is None else prior.given(condition)


@jax.jit
def _decode_batch(prior: Prior, z: jax.Array, condition: jax.Array | None) -> jax.Array:
    return given(prior, condition).decode(z)


def decode(
    prior: Distribution,
    z: ArrayLike,
    *,
    condition: ArrayLike | None = None,
    batch_size: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Events of many latents, on the host.

    Latents go to the device and events come back a batch of draws at a time: no array of all
    events is ever on the device.

    Parameters
    ----------
    prior
        The prior whose latents these are, expanded as in the model where a plate did that.
    z
        Latents of shape ``(..., *latent.event_shape)``, ``mcmc.get_samples()["x_latent"]``, say;
        leading dimensions are chains, draws and plates as they come.
    condition
        One condition a draw, for a conditional prior whose condition was inferred, too: its
        leading dimensions are those of `z`. None for the prior's own.
    batch_size
        Draws on the device at a time; None takes as many as hold 2²³ numbers.
    out
        Array to write into, a `numpy.memmap` for events that do not fit into memory.

    Returns
    -------
    numpy.ndarray
        g(z), without decoder noise, of shape ``(..., *event_shape)``.

    Raises
    ------
    TypeError
        When `prior` is not a generative prior.
    ValueError
        When shapes do not fit.

    Notes
    -----
    **Fails when** the network itself needs more memory for one event than there is.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GANPrior(lambda z: jnp.outer(z, z), 3)
    >>> ngp.decode(prior, jnp.ones((2, 50, 3)), batch_size=16).shape
    (2, 50, 3, 3)
    """
    draws = Draws(prior, z, condition, batch_size, "decode")
    shape = (*draws.draws_shape, *draws.inner_shape, *draws.prior.event_shape)
    if out is None:
        out = np.empty(shape, draws.prior.event_dtype)
    elif out.shape != shape:
        raise ValueError(
            message(
                "decode: out has the wrong shape",
                expected=shape,  # type: ignore[arg-type]
                got=out.shape,
                remedy="make it of that shape",
            )
        )
    rows = out.reshape(draws.number, *draws.event_shape)
    if not np.shares_memory(rows, out) and out.size:
        raise ValueError(
            message(
                "decode: out is not contiguous",
                remedy="pass an array made by numpy.empty or numpy.memmap",
            )
        )
    for batch in draws.batches():
        events = _decode_batch(draws.prior, jnp.asarray(batch.z), _device(batch.condition))
        rows[batch.start : batch.start + batch.count] = np.asarray(events)[: batch.count]
    return out


def _device(condition: np.ndarray | None) -> jax.Array | None:
    return None if condition is None else jnp.asarray(condition)
