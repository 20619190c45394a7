"""`sensitivity`: which directions of the latents the data determine, and which they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior.diagnostics.events import event_names, events_at
from numpyro_genprior.diagnostics.fisher_spectrum import (
    all_fit,
    directions_dense,
    directions_low_rank,
    fisher_product,
    prior_coordinates,
)
from numpyro_genprior.errors import message
from numpyro_genprior.infer.linalg.limits import DEFAULT_RANK
from numpyro_genprior.infer.map_result import MAPEstimate, number
from numpyro_genprior.infer.posterior import Posterior

SHOWN = 6  # singular values that are printed at either end


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """Directions of the latents, from what the data determine to what they do not see.

    Print it to read what that means. The coordinates are those of
    `numpyro_genprior.infer.Posterior`, scaled to unit prior precision where they are not standard
    normal; `latents` names them.

    Attributes
    ----------
    posterior
        The `Posterior`.
    points
        Coordinates at which the information was taken, of shape ``(draws, size)``.
    singular_values
        s, largest first, of shape ``(k,)``: the prior's standard deviations along a direction in
        units of what the data resolve.
    latent_directions
        Orthonormal right singular vectors, of shape ``(k, size)``, a row each.
    largest_discarded
        Estimate of the largest singular value beyond `rank`; 0 when there is none.
    """

    posterior: Posterior
    points: jax.Array
    singular_values: jax.Array
    latent_directions: jax.Array
    largest_discarded: float

    # ---- what the numbers say --------------------------------------------------------------------

    @property
    def identifiable(self) -> jax.Array:
        """Whether the data say more about each direction than the prior does: s > 1."""
        return self.singular_values > 1

    @property
    def num_identifiable(self) -> int:
        """Number of identifiable directions."""
        return int(jnp.sum(self.identifiable))

    @property
    def posterior_shrinkage(self) -> jax.Array:
        """1 / (1 + s²): posterior variance along each direction over the prior's."""
        return 1 / (1 + self.singular_values**2)

    @property
    def information(self) -> float:
        """``½ Σ log(1 + s²)``: what the data add to the prior, in nats (linearised)."""
        return float(0.5 * jnp.sum(jnp.log1p(self.singular_values**2)))

    @property
    def latents(self) -> tuple[str, ...]:
        """For each coordinate the name of its site, with its index where the site is an array."""
        return self.posterior.layout.labels

    @property
    def complete(self) -> bool:
        """Whether there is a direction for each coordinate."""
        return len(self.singular_values) == self.posterior.size

    # ---- in data, events and functionals ---------------------------------------------------------

    def fisher(self) -> jax.Array:
        """The Fisher information ``I = MᵀM``, of shape ``(size, size)``.

        Averaged over the points. By one product for each coordinate after a low-rank search: see
        `fisher_product` for large sizes.
        """
        if self.complete:
            rows = self.latent_directions * self.singular_values[:, None]
            return rows.T @ rows
        unit = jnp.eye(self.posterior.size, dtype=self.points.dtype)
        return jax.lax.map(self.fisher_product, unit)

    def fisher_product(self, v: jax.Array) -> jax.Array:
        """``I v``, matrix-free: one forward and one transposed pass for each point."""
        return fisher_product(self.posterior, self.points, v)

    @cached_property
    def event_directions(self) -> Any:
        """``J_g v`` for each direction v, of shape ``(k, *event_shape)``.

        What moving one prior standard deviation along the direction does to the event (at the mean
        of the points, to first order). A dictionary by site where the model has several events.

        Raises
        ------
        ValueError
            When the model records no event.
        """
        moved = _push_events(self.posterior, self.centre, self.latent_directions)
        return next(iter(moved.values())) if len(moved) == 1 else moved

    @cached_property
    def centre(self) -> jax.Array:
        """Mean of the points, of shape ``(size,)``."""
        return jnp.mean(self.points, axis=0)

    def cramer_rao(
        self, functional: Callable[[Any], Any] | None = None, *, prior: bool = False
    ) -> jax.Array:
        """Least variance of an estimator: along each direction, or of a functional of the event.

        Parameters
        ----------
        functional
            A differentiable function of the event (of a dictionary of events by site, where the
            model has several): ``lambda x: x[3, 4]``, ``lambda x: x[:9].mean()``,
            ``lambda x: x``. None for the directions themselves.
        prior
            Take the prior's information too. The bound is then on the mean squared error averaged
            over the prior, of any estimator (van Trees), and finite.

        Returns
        -------
        jax.Array
            Variances, in squared units of the functional: ``1 / s²`` for directions; otherwise
            ``∇f I⁻¹ ∇fᵀ`` for each entry of what the functional gives, of its shape. Infinite
            where it depends on what the data do not see. With `prior`, ``1 + s²`` and ``1 + I``.

        Raises
        ------
        ValueError
            When the model records no event.

        Notes
        -----
        Without `prior` the bound is on unbiased estimators; a posterior mean is biased towards the
        prior and may well have less variance.
        """
        squares = self.singular_values**2
        variances = 1 / (squares + 1) if prior else _inverse(squares)
        if functional is None:
            return variances
        along, rest, size = _functional(
            self.posterior, self.centre, self.latent_directions, functional
        )
        rounding = 100 * jnp.finfo(size.dtype).eps
        unseen = jnp.broadcast_to(jnp.isinf(variances), along.shape)
        small = jnp.abs(along) <= rounding * jnp.sqrt(size)[..., None]  # zero, where it matters
        parts = jnp.where(unseen & small, 0.0, along) ** 2
        parts = jnp.where(parts > 0, parts * jnp.broadcast_to(variances, parts.shape), 0.0)
        beyond = rest * (1.0 if prior else jnp.inf)
        return jnp.sum(parts, -1) + jnp.where(rest > rounding * size, beyond, 0.0)

    def __repr__(self) -> str:
        s, k = np.asarray(self.singular_values), self.num_identifiable
        size, draws = self.posterior.size, len(self.points)
        where = "at one point" if draws == 1 else f"averaged over {draws} draws"
        missing = not self.complete and self.largest_discarded > 1
        lines = [
            f"Sensitivity of the data to {number(size, 'latent coordinate')}, {where}: "
            f"{'at least ' if missing else ''}{number(k, 'direction')} identified (s > 1), "
            f"{size - k if self.complete else 'the others'} "
            f"{'not looked at' if missing else 'left to the prior'}.",
            f"  singular values s: {_listed(s)}",
            f"  posterior over prior sd, 1/√(1 + s²): {_listed(1 / np.sqrt(1 + s**2))}",
            f"  the data add {self.information:.1f} nats to the prior",
        ]
        if not self.complete:
            lines.append(
                f"  {len(s)} directions were sought; the largest s beyond them is about "
                f"{self.largest_discarded:.2g}"
                + (": raise rank, identified ones are missing" if missing else "")
            )
        if k < size and not missing:
            lines.append(
                "What an event shows along directions that are not identified is the prior's "
                "invention: look at event_directions."
            )
        lines.append(
            "To first order at "
            + ("this point" if draws == 1 else "these draws")
            + ", in the model's own noise: s counts on the likelihood being right."
        )
        return "\n".join(lines)


def sensitivity(
    model: Callable[..., Any], values: Any, *args: Any, rank: int | None = None, **kwargs: Any
) -> Sensitivity:
    """Rank directions of the latents by what the data say of them.

    The singular values of ``M = F^(1/2) ∂θ/∂ξ`` at a point: θ the parameters of the observed laws
    (for ``y ~ N(A(g(z)), σ²)``, ``M = A J_g / σ``), F their Fisher information, ξ the latents in
    coordinates that are standard normal under the prior. Where the posterior is Gaussian, its
    variance along the i-th direction is ``1 / (1 + s_i²)`` of the prior's.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density.
    values
        Where: the result of `numpyro_genprior.infer.find_map`, or values of the latent sites
        (``x_latent``; other entries are ignored). With one leading dimension more than the
        model's, draws: the information is then averaged over them.
    args, kwargs
        The model's arguments. Of observed values only the shapes matter.
    rank
        Find this many directions, matrix-free. None: all of them up to 2048 coordinates and 2·10⁷
        entries of M, 128 beyond.

    Returns
    -------
    Sensitivity
        Prints as a finding; `numpyro_genprior.plots.sensitivity_spectrum` draws it.

    Raises
    ------
    ValueError
        When a latent site has no value, one of a wrong shape or one that is not finite, or an
        observed law has no Fisher rule; by name.

    Notes
    -----
    All: triangular factors of ``M`` at each point, stacked by QR; information is never squared.
    With `rank`: randomized subspace iteration (Halko, Martinsson, Tropp, SIAM Review 2011, 4.4).

    **Fails when** the model bends within one posterior standard deviation: average over posterior
    draws, and compare with the posterior's own spread. The information is expected over data, not
    that of the data at hand.

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
    if rank is None and not all_fit(posterior):
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


def _points(posterior: Posterior, values: Any) -> jax.Array:
    """Coordinates of one point or of several, of shape ``(points, size)``."""
    if not isinstance(values, dict):
        raise TypeError(
            message(
                "sensitivity needs values of the latent sites",
                expected="a dictionary, or the result of find_map",
                got=type(values).__name__,
                remedy='pass est.values, mcmc.get_samples() or {"x_latent": z}',
            )
        )
    kept, draws = {}, set()
    for place in posterior.layout.slices:
        if place.name not in values:
            posterior.coordinates(values)  # says what is missing
        value = jnp.asarray(values[place.name])
        shape = place.value_shape
        if value.shape[value.ndim - len(shape) :] != shape or value.ndim > len(shape) + 1:
            raise ValueError(
                message(
                    f"The value of site {place.name!r} has the wrong shape",
                    expected=f"{shape}, or with one leading dimension of draws",
                    got=value.shape,
                    remedy="give mcmc.get_samples(), without group_by_chain",
                )
            )
        kept[place.name] = value
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


@eqx.filter_jit
def _push_events(posterior: Posterior, xi: jax.Array, directions: jax.Array) -> Any:
    names = event_names(posterior)
    scale = prior_coordinates(posterior, xi)
    push = jax.linearize(lambda v: events_at(posterior, names, xi + scale(v)), jnp.zeros_like(xi))[
        1
    ]
    return jax.lax.map(push, directions, batch_size=64)


@eqx.filter_jit
def _functional(posterior: Posterior, xi: jax.Array, directions: jax.Array, functional: Any) -> Any:
    """Gradients along the directions ``(..., k)``, what is left of their squares, and those."""
    names = event_names(posterior)
    scale = prior_coordinates(posterior, xi)

    def value(v: jax.Array) -> jax.Array:
        events = events_at(posterior, names, xi + scale(v))
        single = next(iter(events.values())) if len(events) == 1 else events
        return jnp.asarray(functional(single))

    origin = jnp.zeros_like(xi)
    entries = jax.eval_shape(value, origin).size
    jacobian = (jax.jacrev if entries <= xi.shape[0] else jax.jacfwd)(value)(origin)
    along = jacobian @ directions.T
    size = jnp.sum(jacobian**2, -1)
    if directions.shape[0] == directions.shape[1]:
        return along, jnp.zeros_like(size), size
    return along, jnp.maximum(size - jnp.sum(along**2, -1), 0), size


def _inverse(squares: jax.Array) -> jax.Array:
    """``1 / s²``, infinite for what is zero to rounding."""
    least = (8 * jnp.finfo(squares.dtype).eps) ** 2 * squares.shape[0] * jnp.max(squares)
    return jnp.where(squares > least, 1 / jnp.maximum(squares, least), jnp.inf)


def _listed(values: np.ndarray) -> str:
    shown = [f"{value:.3g}" for value in values]
    if len(shown) > 2 * SHOWN:
        shown = [*shown[:SHOWN], "…", *shown[-SHOWN:]]
    return ", ".join(shown)
