"""`sensitivity`: which directions of the latents the data determine, and which they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from numpyro_genprior.diagnostics.fisher_spectrum import (
    directions_dense,
    directions_low_rank,
    jacobian_is_small,
)
from numpyro_genprior.diagnostics.posterior.sensitivity_result import Sensitivity
from numpyro_genprior.errors import message
from numpyro_genprior.infer.linalg.limits import DEFAULT_RANK
from numpyro_genprior.infer.map_result import MAPEstimate
from numpyro_genprior.infer.posterior import Posterior


def sensitivity(
    model: Callable[..., Any],
    values: MAPEstimate | Mapping[str, ArrayLike],
    *args: Any,
    rank: int | None = None,
    **kwargs: Any,
) -> Sensitivity:
    """Rank directions of the latents by how well the data determine them.

    Computes the singular values of ``M = F^(1/2) ∂θ/∂ξ`` at a point, where θ are the parameters of
    the observed distributions, F is their Fisher information, and ξ are the latents in coordinates
    that are standard normal under the prior. For ``y ~ N(A(g(z)), σ²)`` this is
    ``M = A J_g / σ``. If the posterior is Gaussian, its variance along the i-th direction is
    ``1 / (1 + s_i²)`` of the prior's.

    Parameters
    ----------
    model
        A NumPyro model, decorated with `numpyro_genprior.latent` if it has priors without an exact
        density.
    values
        The point: the result of `numpyro_genprior.infer.find_map`, or values of the latent sites
        (``x_latent``; other entries are ignored). Values with one more leading dimension than the
        model's are draws, over which the information is averaged.
    args, kwargs
        The model's arguments. Only the shapes of observed values matter.
    rank
        Number of directions to find, matrix-free. None: all of them up to 2048 coordinates and
        2·10⁷ entries of M, 128 beyond that.

    Returns
    -------
    Sensitivity
        ``print`` states the finding; `numpyro_genprior.plots.sensitivity_spectrum` draws it.

    Raises
    ------
    TypeError
        If `values` is neither a dictionary nor the result of `find_map`.
    ValueError
        If a latent site has no value, or one of the wrong shape or not finite, or if an observed
        distribution has no Fisher rule; the message names it.

    Notes
    -----
    All directions: triangular factors of ``M`` at each point are stacked by QR, so ``MᵀM`` is never
    formed. With `rank`: randomized subspace iteration (Halko, Martinsson, Tropp, SIAM Review 2011,
    4.4).

    **Fails when** the model is strongly nonlinear within one posterior standard deviation: average
    over posterior draws, and compare with the posterior's own spread. The information is the
    expectation over data, not that of the data at hand.

    References
    ----------
    Cui, Martin, Marzouk, Solonen, Spantini, Likelihood-informed dimension reduction for nonlinear
    inverse problems, Inverse Problems 2014. Van Trees, Detection, Estimation, and Modulation Theory
    I, 1968, 2.4.3.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(y=None):
    ...     x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.stack([3 * z[0], z[1], z[0]]), 2))
    ...     numpyro.sample("y", dist.Normal(x[0], 0.1), obs=y)
    >>> s = ngp.diagnostics.sensitivity(model, {"x_latent": jnp.zeros(2)}, jnp.array(1.0))
    >>> s.singular_values.round(2), s.identifiable
    (Array([30.,  0.], dtype=float32), Array([ True, False], dtype=bool))
    >>> s.cramer_rao(lambda x: x).round(4)
    Array([0.01  ,    inf, 0.0011], dtype=float32)
    """
    posterior = Posterior(model, args, kwargs)
    points = _points(posterior, values.values if isinstance(values, MAPEstimate) else values)
    if rank is None and not jacobian_is_small(posterior):
        rank = DEFAULT_RANK
    if rank is None or rank >= posterior.size:
        singular, directions = directions_dense(posterior, points)
        return Sensitivity(posterior, points, singular, directions, 0.0)
    if rank < 1:
        raise ValueError(
            message(
                "sensitivity: no directions",
                expected="rank of at least 1",
                got=rank,
                remedy="leave rank=None for all",
            )
        )
    singular, directions, discarded = directions_low_rank(posterior, points, rank)
    return Sensitivity(posterior, points, singular, directions, float(discarded))


def _points(posterior: Posterior, values: Mapping[str, ArrayLike]) -> jax.Array:
    """Coordinates of one point or of several, of shape ``(points, size)``."""
    if not isinstance(values, Mapping):
        raise TypeError(
            message(
                "sensitivity needs values of the latent sites",
                expected="a dictionary, or the result of find_map",
                got=type(values).__name__,
                remedy='pass est.values, mcmc.get_samples() or {"x_latent": z}',
            )
        )
    kept, draws = {}, set()
    for site_slice in posterior.layout.slices:
        if site_slice.name not in values:
            posterior.coordinates(dict(values))  # raises an error that names the missing site
        value = jnp.asarray(values[site_slice.name])
        shape = site_slice.value_shape
        if value.shape[value.ndim - len(shape) :] != shape or value.ndim > len(shape) + 1:
            raise ValueError(
                message(
                    f"The value of site {site_slice.name!r} has the wrong shape",
                    expected=f"{shape}, or with one leading dimension of draws",
                    got=value.shape,
                    remedy="give mcmc.get_samples(), without group_by_chain",
                )
            )
        kept[site_slice.name] = value
        draws.add(value.shape[: value.ndim - len(shape)])
    if len(draws) != 1:
        raise ValueError(
            message(
                "The latent sites have different numbers of draws",
                got=sorted(draws),
                remedy="give one value of each site, or the same number of draws of all",
            )
        )
    batched = bool(next(iter(draws)))
    points = _coordinates(posterior, kept, batched)
    if not bool(jnp.all(jnp.isfinite(points))):
        raise ValueError(
            message("Values of the latent sites are not finite", remedy="drop those draws")
        )
    return points


@eqx.filter_jit
def _coordinates(posterior: Posterior, values: dict[str, jax.Array], batched: bool) -> jax.Array:
    if batched:
        return jax.lax.map(posterior.coordinates, values)
    return posterior.coordinates(values)[None]
