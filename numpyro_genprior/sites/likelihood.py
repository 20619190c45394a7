"""The log likelihood of a trace, with masks, scales and plates."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from numpyro_genprior.sites.model_reader import Message, Trace


def log_likelihood(trace: Trace, names: Iterable[str] | None = None) -> jax.Array:
    """Log density of the observed sites of a trace, summed.

    Parameters
    ----------
    trace
        What ``numpyro.handlers.trace`` recorded.
    names
        The sites to sum over. None: all observed ones, ``numpyro.factor`` included.

    Returns
    -------
    jax.Array
        A scalar.
    """
    if names is None:
        names = [n for n, s in trace.items() if s["type"] == "sample" and s["is_observed"]]
    total = jnp.zeros(())
    for name in names:
        scale = trace[name]["scale"]
        log_prob = pointwise_log_likelihood(trace[name])
        total = total + jnp.sum(log_prob if scale is None else scale * log_prob)
    return total


def pointwise_log_likelihood(site: Message) -> jax.Array:
    """Log density of one site, of its batch shape: 0 where it is masked, without scales.

    Scales (``handlers.scale``, subsampled plates) weight the sum over observations and are not part
    of the density of an observation. With ``obs_mask``, NumPyro masks site ``y_observed``.
    """
    with jax.numpy_rank_promotion("allow"):  # NumPyro's distributions rely on it
        return site["fn"].log_prob(site["value"])


__all__ = ["log_likelihood", "pointwise_log_likelihood"]
