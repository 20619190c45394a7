"""Group minimisations by mode: two found the same one if no barrier separates them."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.infer.posterior import Posterior

MAX_BARRIER = 2.0  # nats, within one mode
NUM_POINTS = 15  # between two ends, at which the energy is evaluated


@dataclass(frozen=True, eq=False)
class Mode:
    """One mode of a posterior.

    Attributes
    ----------
    xi
        Its coordinates, of shape ``(size,)``.
    values
        All sites there, latents and events.
    energy
        Minus the log joint density, in nats.
    share
        Fraction of all starts that ended here. It measures the mode's basin of attraction, not its
        probability.
    starts
        Indices of these starts.
    """

    xi: jax.Array
    values: dict[str, jax.Array]
    energy: float
    share: float
    starts: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Mode(energy={self.energy:.2f}, share={self.share:.0%})"


def group(posterior: Posterior, xi: jax.Array, energy: np.ndarray) -> list[list[int]]:
    """Group points by basin, best first.

    Two points belong to one mode if the energy on the straight line between them never exceeds
    that of the higher end by more than 2 nats: where the density falls to no less than a seventh,
    samplers walk freely. This joins minimisations that ended at different points of one flat
    valley, or at neighbouring kinks of a piecewise linear network, which a distance alone would
    call different modes; and it does not depend on the coordinates' scales.

    Parameters
    ----------
    posterior
        A `Posterior`.
    xi
        Points, of shape ``(n, size)``.
    energy
        Their energies, of shape ``(n,)``.

    Returns
    -------
    list of list of int
        Rows of `xi`; the first row of each group is its lowest.

    Notes
    -----
    **Fails when** one basin is curved so strongly that the straight line leaves it: it counts
    twice.
    """
    groups: list[list[int]] = []
    for i in map(int, np.argsort(energy)):
        for members in groups:
            if _barrier(posterior, xi[members[0]], xi[i]) - energy[i] <= MAX_BARRIER:
                members.append(i)
                break
        else:
            groups.append([i])
    return groups


@eqx.filter_jit
def _barrier(posterior: Posterior, a: jax.Array, b: jax.Array) -> jax.Array:
    """The highest energy between two points; energies that are not numbers count as infinite."""

    def energy(fraction: jax.Array) -> jax.Array:
        return posterior.energy(a + fraction * (b - a))

    inner = jnp.linspace(0.0, 1.0, NUM_POINTS + 2)[1:-1].astype(a.dtype)
    energies = jax.vmap(energy)(inner)
    return jnp.max(jnp.where(jnp.isnan(energies), jnp.inf, energies))
