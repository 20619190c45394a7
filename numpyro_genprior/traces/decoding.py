"""`decode`: latents to events on the host, a batch of draws at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior
from numpyro_genprior.traces.latent_draws import LatentDraws, to_device, with_condition


@jax.jit
def _decode_batch(prior: Prior, z: jax.Array, condition: jax.Array | None) -> jax.Array:
    return with_condition(prior, condition).decode(z)


def decode(
    prior: Distribution,
    z: ArrayLike,
    *,
    condition: ArrayLike | None = None,
    batch_size: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Events of many latents, on the host.

    Latents go to the device, and events come back, a batch of draws at a time: the device never
    holds all events.

    Parameters
    ----------
    prior
        The prior of these latents, expanded as in the model if a plate expanded it there.
    z
        Latents of shape ``(..., *latent.event_shape)``, e.g. ``mcmc.get_samples()["x_latent"]``;
        leading dimensions are chains, draws and plates, in this order.
    condition
        One condition for each draw, if the condition was inferred, too: its leading dimensions
        are those of `z`. None for the prior's own.
    batch_size
        Draws on the device at a time; None for as many as hold 2²³ numbers.
    out
        Array to write into, e.g. a `numpy.memmap` if the events do not fit into memory.

    Returns
    -------
    numpy.ndarray
        g(z), without decoder noise, of shape ``(..., *event_shape)``.

    Raises
    ------
    TypeError
        If `prior` is not a generative prior.
    ValueError
        If shapes do not fit.

    Notes
    -----
    **Fails when** the network needs more memory for a single event than there is.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GANPrior(lambda z: jnp.outer(z, z), 3)
    >>> ngp.decode(prior, jnp.ones((2, 50, 3)), batch_size=16).shape
    (2, 50, 3, 3)
    """
    draws = LatentDraws(prior, z, condition, batch_size, "decode")
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
        events = _decode_batch(draws.prior, jnp.asarray(batch.z), to_device(batch.condition))
        rows[batch.start : batch.start + batch.count] = np.asarray(events)[: batch.count]
    return out
