"""Starting points for chains of `FisherNUTS`, and the map that whitens their coordinates."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.transforms import Transform

from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.map import summarise
from numpyro_genprior.infer.map_result import MAX_COMPETING_GAP, MAPEstimate
from numpyro_genprior.infer.optimize.minimise import default_solver, lowest, minimise
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.whitening import fisher_whitening

MAX_STEPS, TOLERANCE = 100, 1e-2  # of the search; the tolerance in nats
REMEDY = (
    "look at r_hat, and where the chains disagree search for longer: pass "
    "estimate=ngp.infer.find_map(model, key, ..., max_steps=1000)"
)


class WarmStart(eqx.Module):
    """Modes and a whitening of a posterior, as arrays.

    Attributes
    ----------
    modes
        Coordinates, of shape ``(number, size)``.
    weights
        Probability with which a chain starts at each; zero for modes of much higher energy.
    transform
        The affine map from whitened coordinates.
    """

    modes: jax.Array
    weights: jax.Array
    transform: Transform

    def draw(self, posterior: Posterior, key: PRNGKeyArray, dispersion: float) -> jax.Array:
        """An over-dispersed start near a mode; the mode itself if its energy is not finite."""
        mode_key, white_key = jax.random.split(key)
        mode = self.modes[jax.random.choice(mode_key, len(self.modes), p=self.weights)]
        white = dispersion * jax.random.normal(white_key, mode.shape, mode.dtype)
        start = mode + self.transform(white) - self.transform(jnp.zeros_like(white))
        return jnp.where(jnp.isfinite(posterior.energy(start)), start, mode)


def find_warm_start(
    posterior: Posterior, key: PRNGKeyArray | None, *, num_starts: int, rank: int | None
) -> tuple[WarmStart, MAPEstimate | None]:
    """Search for modes and whiten at the best one.

    With concrete data, also inside of ``jax.vmap`` or ``pmap`` over chains, the search runs
    immediately, and its estimate is returned, with warnings. With traced data it becomes part of
    the program, and there is no estimate. Without a key, a fixed one is used.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((posterior, key))):
        key = jax.random.key(0) if key is None else key
        return _find(posterior, key, num_starts, rank)[0], None
    with jax.ensure_compile_time_eval():
        key = jax.random.key(0) if key is None else key  # a tracer if made outside
        start, starts, minima = _find(posterior, key, num_starts, rank)
        solver = default_solver(posterior, atol=TOLERANCE)
        estimate = summarise(posterior, starts, minima, solver, REMEDY)
    return start, estimate


@eqx.filter_jit
def _find(posterior: Posterior, key: PRNGKeyArray, num_starts: int, rank: int | None) -> Any:
    initial, encoded = draw_starts(posterior, key, num_starts)
    solver = default_solver(posterior, atol=TOLERANCE)
    minima = minimise(posterior, initial, solver, max_steps=MAX_STEPS)
    return _warm_start(posterior, minima.xi, minima.energy, rank), (initial, encoded), minima


def from_estimate(estimate: MAPEstimate, posterior: Posterior, *, rank: int | None) -> WarmStart:
    """The distinct modes that `find_map` found, and the whitening at the best one."""
    modes = [mode.xi for mode in estimate.modes]
    energies = np.array([mode.energy for mode in estimate.modes])
    return _jit_warm_start(posterior, jnp.stack(modes), jnp.asarray(energies, modes[0].dtype), rank)


def _warm_start(
    posterior: Posterior,
    xi: Float[Array, "mode latent"],
    energy: Float[Array, " mode"],
    rank: int | None,
) -> WarmStart:
    energy = jnp.where(jnp.isfinite(energy), energy, jnp.inf)
    best = lowest(energy)
    near = energy <= energy[best] + MAX_COMPETING_GAP
    transform, _ = fisher_whitening(posterior, xi[best], rank=rank)
    return WarmStart(xi, near / jnp.sum(near), transform)


_jit_warm_start = eqx.filter_jit(_warm_start)
