"""Sites of many draws, a batch of draws on the device at a time."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.infer.posterior import Posterior

BATCH_ELEMENTS = 2**23  # numbers on the device at a time, 32 MiB in single precision


def streamed_values(posterior: Posterior, xi: jax.Array | np.ndarray) -> dict[str, np.ndarray]:
    """All sites at many coordinates, on the host.

    Parameters
    ----------
    posterior
        The posterior whose coordinates these are.
    xi
        Coordinates of shape ``(draws, size)``.

    Returns
    -------
    dict
        For each site an array of shape ``(draws, *site_shape)``. No array of all draws of a
        large event is ever on the device.
    """
    number = xi.shape[0]
    shapes = jax.eval_shape(posterior.values, jax.ShapeDtypeStruct((posterior.size,), xi.dtype))
    one = sum(math.prod(jnp.shape(shape)) for shape in jax.tree.leaves(shapes))
    size = max(1, min(number, BATCH_ELEMENTS // max(one, 1)))
    kept: dict[str, np.ndarray] = {}
    for first in range(0, number, size):
        start = min(first, number - size)  # one shape: the last batch reaches back
        batch = jax.device_get(_values(posterior, jnp.asarray(xi[start : start + size])))
        for name, value in batch.items():
            if name not in kept:
                kept[name] = np.empty((number, *value.shape[1:]), value.dtype)
            kept[name][start : start + size] = value
    return kept


@jax.jit
def _values(posterior: Posterior, xi: jax.Array) -> dict[str, jax.Array]:
    return jax.vmap(posterior.values)(xi)
