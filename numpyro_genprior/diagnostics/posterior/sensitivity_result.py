"""`Sensitivity`: the result of `sensitivity`, with event directions and Cramér-Rao bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from numpyro_genprior.diagnostics.events import event_names, events_at
from numpyro_genprior.diagnostics.fisher_spectrum import fisher_product, prior_coordinates
from numpyro_genprior.infer.map_result import number
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.results import Result, axis_names, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MAX_PRINTED = 6  # singular values at either end
Events = jax.Array | dict[str, jax.Array]  # of one site, or by site


@dataclass(frozen=True, repr=False, eq=False)
class Sensitivity(Result):
    """Directions of the latents, ordered by how well the data determine them.

    Print it to read the finding. The coordinates are those of `numpyro_genprior.infer.Posterior`,
    scaled to unit prior precision if they are not standard normal; `latents` names them.

    Attributes
    ----------
    posterior
        The `Posterior`.
    points
        Coordinates at which the information was evaluated, of shape ``(draws, size)``.
    singular_values
        s, largest first, of shape ``(k,)``: the prior's standard deviation along a direction, in
        units of what the data resolve.
    latent_directions
        Orthonormal right singular vectors, of shape ``(k, size)``, one per row.
    largest_discarded
        Estimate of the largest singular value beyond `rank`; 0 if there is none.
    """

    posterior: Posterior
    points: Float[Array, "draws size"]
    singular_values: Float[Array, " k"]
    latent_directions: Float[Array, "k size"]
    largest_discarded: float

    @property
    def identifiable(self) -> Bool[Array, " k"]:
        """Whether the data say more about each direction than the prior does (s > 1)."""
        return self.singular_values > 1

    @property
    def num_identifiable(self) -> int:
        """Number of identifiable directions."""
        return int(jnp.sum(self.identifiable))

    @property
    def posterior_shrinkage(self) -> Float[Array, " k"]:
        """1 / (1 + s²): posterior variance along each direction over the prior's."""
        return 1 / (1 + self.singular_values**2)

    @property
    def information(self) -> float:
        """``½ Σ log(1 + s²)``: what the data add to the prior, in nats (to first order)."""
        return float(0.5 * jnp.sum(jnp.log1p(self.singular_values**2)))

    @property
    def latents(self) -> tuple[str, ...]:
        """For each coordinate the name of its site, with its index if the site is an array."""
        return self.posterior.layout.labels

    @property
    def complete(self) -> bool:
        """Whether there are as many directions as coordinates."""
        return len(self.singular_values) == self.posterior.size

    def fisher(self) -> Float[Array, "size size"]:
        """The Fisher information ``I = MᵀM``, of shape ``(size, size)``.

        Averaged over the points. After a low-rank search it needs one product per coordinate: use
        `fisher_product` for large sizes.
        """
        if self.complete:
            rows = self.latent_directions * self.singular_values[:, None]
            return rows.T @ rows
        unit = jnp.eye(self.posterior.size, dtype=self.points.dtype)
        return jax.lax.map(self.fisher_product, unit)

    def fisher_product(self, v: Float[Array, " size"]) -> Float[Array, " size"]:
        """``I v``, matrix-free: one forward and one transposed pass per point."""
        return fisher_product(self.posterior, self.points, v)

    @cached_property
    def event_directions(self) -> Events:
        """``J_g v`` for each direction v, of shape ``(k, *event_shape)``.

        The change of the event by a step of one prior standard deviation along the direction (at
        the mean of the points, to first order). A dictionary by site if the model has several
        events.

        Raises
        ------
        ValueError
            If the model records no event.
        """
        return _single(_push_events(self.posterior, self.centre, self.latent_directions))

    @cached_property
    def centre(self) -> Float[Array, " size"]:
        """Mean of the points, of shape ``(size,)``."""
        return jnp.mean(self.points, axis=0)

    def cramer_rao(
        self, functional: Callable[[Events], ArrayLike] | None = None, *, prior: bool = False
    ) -> jax.Array:
        """Lower bound on an estimator's variance along each direction, or for a functional.

        Parameters
        ----------
        functional
            A differentiable function of the event (of a dictionary of events by site, if the model
            has several): ``lambda x: x[3, 4]``, ``lambda x: x[:9].mean()``, ``lambda x: x``. None
            for the directions themselves.
        prior
            Include the prior's information. The bound is then finite, and on the mean squared
            error of any estimator, averaged over the prior (van Trees).

        Returns
        -------
        jax.Array
            Variances, in squared units of the functional: ``1 / s²`` for directions; otherwise
            ``∇f I⁻¹ ∇fᵀ`` for each entry of the functional, in its shape. Infinite for entries
            that depend on directions that the data do not determine. With `prior`, ``1 + s²`` and
            ``1 + I`` replace ``s²`` and ``I``.

        Raises
        ------
        ValueError
            If the model records no event.

        Notes
        -----
        Without `prior` the bound holds for unbiased estimators; a posterior mean is biased towards
        the prior and may well have less variance.
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
        small = jnp.abs(along) <= rounding * jnp.sqrt(size)[..., None]
        parts = jnp.where(unseen & small, 0.0, along) ** 2
        parts = jnp.where(parts > 0, parts * jnp.broadcast_to(variances, parts.shape), 0.0)
        beyond = rest * (1.0 if prior else jnp.inf)
        return jnp.sum(parts, -1) + jnp.where(rest > rounding * size, beyond, 0.0)

    @property
    def _missing(self) -> bool:
        """Whether identified directions were left out."""
        return not self.complete and self.largest_discarded > 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if `rank` was too low to find all identified directions."""
        if not self._missing:
            return ()
        return (
            "Identified directions are missing: the largest s beyond the "
            f"{len(self.singular_values)} directions sought is about {self.largest_discarded:.2g}, "
            "so raise rank.",
        )

    def __str__(self) -> str:
        s, num_identified = np.asarray(self.singular_values), self.num_identifiable
        size, draws = self.posterior.size, len(self.points)
        where = "at one point" if draws == 1 else f"averaged over {draws} draws"
        lines = [
            f"Sensitivity of the data to {number(size, 'latent coordinate')}, {where}: "
            f"{'at least ' if self._missing else ''}{number(num_identified, 'direction')} "
            f"identified (s > 1), "
            f"{size - num_identified if self.complete else 'the others'} "
            f"{'not examined' if self._missing else 'left to the prior'}.",
            f"  singular values s: {_listed(s)}",
            f"  posterior over prior sd, 1/√(1 + s²): {_listed(1 / np.sqrt(1 + s**2))}",
            f"  the data add {self.information:.1f} nats to the prior",
        ]
        if not self.complete and not self._missing:
            lines.append(
                f"  {len(s)} directions were sought; the largest s beyond them is about "
                f"{self.largest_discarded:.2g}"
            )
        lines += self.warnings
        if num_identified < size and not self._missing:
            lines.append(
                "What an event shows along directions that are not identified comes from the prior "
                "alone: look at event_directions."
            )
        lines.append(
            "To first order at "
            + ("this point" if draws == 1 else "these draws")
            + ", in units of the model's own noise: s relies on the likelihood being right."
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"Sensitivity(num_identifiable={self.num_identifiable}, size={self.posterior.size}, "
            f"directions={len(self.singular_values)}, points={len(self.points)})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw `numpyro_genprior.plots.sensitivity_spectrum`.

        `numpyro_genprior.plots.event_directions` draws the directions themselves.
        """
        from numpyro_genprior import plots

        return plots.sensitivity_spectrum(self, ax=ax)

    def _events_by_site(self) -> dict[str, jax.Array]:
        """`event_directions` by site; empty if the model records no event."""
        if not self.posterior.sites.events():
            return {}
        return _push_events(self.posterior, self.centre, self.latent_directions)

    def to_dataset(self) -> xarray.Dataset:
        """Singular values by ``direction``; directions by ``coordinate`` and in events.

        Directions in events are the variables ``event_<site>``, with dimensions ``row`` and
        ``col`` of an image, preceded by the site's name if there are several. A model that records
        no event has none.
        """
        events = self._events_by_site()
        arrays = {}
        for name, moved in events.items():
            axes = axis_names(moved.ndim - 1, name if len(events) > 1 else "")
            arrays[f"event_{name}"] = (("direction", *axes), moved)
        return dataset(
            {
                "singular_values": (("direction",), self.singular_values),
                "identifiable": (("direction",), self.identifiable),
                "posterior_shrinkage": (("direction",), self.posterior_shrinkage),
                "latent_directions": (("direction", "coordinate"), self.latent_directions),
                "points": (("point", "coordinate"), self.points),
                **arrays,
            },
            coords={"coordinate": list(self.latents)},
            attrs={"information": self.information, "largest_discarded": self.largest_discarded},
        )


def _single(events: dict[str, jax.Array]) -> Events:
    """The event itself if there is only one."""
    return next(iter(events.values())) if len(events) == 1 else events


@eqx.filter_jit
def _push_events(
    posterior: Posterior, xi: jax.Array, directions: jax.Array
) -> dict[str, jax.Array]:
    names = event_names(posterior)
    scale = prior_coordinates(posterior, xi)
    origin = jnp.zeros_like(xi)
    _, push = jax.linearize(lambda v: events_at(posterior, names, xi + scale(v)), origin)
    return jax.lax.map(push, directions, batch_size=64)


@eqx.filter_jit
def _functional(
    posterior: Posterior,
    xi: jax.Array,
    directions: jax.Array,
    functional: Callable[[Events], ArrayLike],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients along the directions ``(..., k)``, and their squares: beyond these, and all."""
    names = event_names(posterior)
    scale = prior_coordinates(posterior, xi)

    def value(v: jax.Array) -> jax.Array:
        return jnp.asarray(functional(_single(events_at(posterior, names, xi + scale(v)))))

    origin = jnp.zeros_like(xi)
    entries = jax.eval_shape(value, origin).size
    jacobian = (jax.jacrev if entries <= xi.shape[0] else jax.jacfwd)(value)(origin)
    along = jacobian @ directions.T
    size = jnp.sum(jacobian**2, -1)
    if directions.shape[0] == directions.shape[1]:
        return along, jnp.zeros_like(size), size
    return along, jnp.maximum(size - jnp.sum(along**2, -1), 0), size


def _inverse(squares: Float[Array, " k"]) -> Float[Array, " k"]:
    """``1 / s²``, infinite for values that are zero to rounding."""
    smallest = (8 * jnp.finfo(squares.dtype).eps) ** 2 * squares.shape[0] * jnp.max(squares)
    return jnp.where(squares > smallest, 1 / jnp.maximum(squares, smallest), jnp.inf)


def _listed(values: np.ndarray) -> str:
    shown = [f"{value:.3g}" for value in values]
    if len(shown) > 2 * MAX_PRINTED:
        shown = [*shown[:MAX_PRINTED], "…", *shown[-MAX_PRINTED:]]
    return ", ".join(shown)
