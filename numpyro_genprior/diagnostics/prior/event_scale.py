"""`estimate_event_scale`: the representation error of a generator on held-out events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike, DTypeLike
from numpyro.distributions import Distribution

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.prior.prior_posterior import bare_prior
from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.optimize.minimise import minimise
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.priors import Prior
from numpyro_genprior.results import Result, axis_names, dataset, refuse_axes
from numpyro_genprior.sites import latent

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_REFITS, MIN_CHANGE = 40, 2e-3  # refits of all events, and the relative change that ends them
BATCH_SIZE = 32  # events that are fitted at a time
MAX_WHITE_CORRELATION = 0.1  # of neighbours, above which the error is not called white


@dataclass(frozen=True, repr=False, eq=False)
class EventScale(Result):
    """The representation error of a generator per entry of an event. Print it to read the finding.

    It is also a number: ``float(result)`` and ``jnp.asarray(result)`` give `scale`.

    Attributes
    ----------
    scale
        Standard deviation of an entry of the event about the generator's best fit.
    standard_error
        Standard error of `scale`, from the spread over events.
    by_entry
        `scale` for each entry, of the event's shape; its root mean square is `scale`.
    errors
        `scale` for each held-out event, of shape ``(number,)``.
    residuals
        Events minus the generator's best fits, of shape ``(number, *event_shape)``.
    correlation
        Correlation of the residuals of neighbours, along each axis of the event: 0 for a white
        error.
    decoder_scale
        Root mean square of the prior's own decoder noise; None if it has none, or noise that
        depends on the latent.
    """

    scale: float
    standard_error: float
    by_entry: jax.Array
    errors: jax.Array
    residuals: jax.Array
    correlation: tuple[float, ...]
    decoder_scale: float | None

    def __float__(self) -> float:
        return self.scale

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.scale, dtype or self.errors.dtype)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if the errors of neighbouring entries are correlated."""
        if all(abs(c) <= MAX_WHITE_CORRELATION for c in self.correlation):
            return ()
        listed = ", ".join(f"{c:.2f}" for c in self.correlation)
        return (
            f"Errors of neighbours are correlated ({listed} along the axes): the error of data "
            "that sum over many entries is larger than that of white noise of this size.",
        )

    def __str__(self) -> str:
        errors, entries = np.asarray(self.errors), np.asarray(self.by_entry)
        lines = [
            f"The generator's error is {self.scale:.3g} ± {self.standard_error:.1g} per entry of a "
            f"held-out event (standard deviation, {len(errors)} events).",
            f"  by event {errors.min():.3g} to {errors.max():.3g}; by entry {entries.min():.3g} "
            f"to {entries.max():.3g}",
        ]
        if self.decoder_scale is not None:
            lines.append(f"  the decoder's own noise is {self.decoder_scale:.3g}")
        lines += self.warnings
        lines.append(
            "This holds for events like these and for the best fits that the search found; other "
            "events or a better search give another number."
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"EventScale({self.scale:.3g} ± {self.standard_error:.1g}, {len(self.errors)} events)"
        )

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw `numpyro_genprior.plots.event_scale`, which has two panels."""
        from numpyro_genprior import plots

        refuse_axes(ax, "an EventScale")
        return plots.event_scale(self)

    def to_dataset(self) -> xarray.Dataset:
        """The errors by ``event`` and by the event's dimensions (``row``, ``col`` of an image)."""
        axes = axis_names(self.by_entry.ndim)
        decoder_scale = (
            {} if self.decoder_scale is None else {"decoder_scale": ((), self.decoder_scale)}
        )
        return dataset(
            {
                "scale": ((), self.scale),
                "standard_error": ((), self.standard_error),
                "by_entry": (axes, self.by_entry),
                "errors": (("event",), self.errors),
                "residuals": (("event", *axes), self.residuals),
                "correlation": (("axis",), list(self.correlation)),
                **decoder_scale,
            },
            coords={"axis": list(axes)},
        )


def estimate_event_scale(
    prior: Distribution, key: jax.Array, held_out_events: ArrayLike, *, num_starts: int = 4
) -> EventScale:
    """Measure the representation error of a generator on events that it was not trained on.

    For each event x the best latent is ``argmin |x - g(z)|² / (2 s²) + |z|² / 2``, and s is the
    scale that agrees with the residuals: ``s² = Σ |x - g(z)|² / Σ (n - Σ_i s_i² / (1 + s_i²))``
    with n entries of an event and s_i the singular values of ``J_g / s``. The second sum counts
    the degrees of freedom that the latents used; for a linear generator with white noise it makes
    s² unbiased.

    Parameters
    ----------
    prior
        A prior with an empty batch shape, whose events are images of a smaller latent: a GAN or a
        VAE. For a VAE, the decoder's mean is used.
    key
        Random key of the starts.
    held_out_events
        Of shape ``(number, *event_shape)``, at least two; a hundred give an error of a few
        percent. They should come from the population of the data that you will see, not from the
        training set.
    num_starts
        Number of descents for each event. If there is an encoder, the first starts at its output.

    Returns
    -------
    EventScale
        ``.scale``, and itself a number: pass it as ``event_scale=`` of
        `numpyro_genprior.operators.MarginalNormal`.

    Raises
    ------
    TypeError
        If `prior` is not a prior.
    ValueError
        If the prior has a density (it can produce every event) or a batch shape; if events have
        the wrong shape, are not finite, or fewer than two; if `num_starts` is below 1; if the
        latent is as large as the event.

    Notes
    -----
    **Fails when** the held-out events are not exchangeable with those to come: it then measures
    another error. Descents that end in poor modes make it too large.

    References
    ----------
    Bora, Jalal, Price, Dimakis, Compressed sensing using generative models, ICML 2017
    (representation error). MacKay, Bayesian interpolation, 1992 (effective number of parameters).

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GANPrior(lambda z: jnp.outer(jnp.linspace(-1, 1, 8), z), 3)
    >>> z, noise = (
    ...     jax.random.normal(jax.random.key(i), s) for i, s in ((0, (40, 3)), (1, (40, 8, 3)))
    ... )
    >>> events = prior.decode(z) + 0.2 * noise
    >>> tau = ngp.diagnostics.estimate_event_scale(prior, jax.random.key(2), events)
    >>> f"{float(tau):.2f}"
    '0.20'
    """
    core = bare_prior(prior, "estimate_event_scale")
    if core.density == "exact":
        raise ValueError(
            message(
                f"estimate_event_scale: a {type(core).__name__} has a density and can produce "
                "every event",
                expected="a prior without an exact density",
                remedy="compare prior.log_prob of held-out events with that of draws",
            )
        )
    events = _events(core, held_out_events)
    if num_starts < 1:
        raise ValueError(
            message(
                "estimate_event_scale needs a start",
                expected="num_starts of at least 1",
                got=num_starts,
                remedy="leave num_starts=4",
            )
        )
    keys = jax.random.split(validation.random_key(key), len(events))
    decoder_scale = _decoder_scale(core)
    scale, residuals, degrees = _estimate(core, events, keys, num_starts, decoder_scale)
    squares = _squares(residuals)
    spread = jnp.std(squares - scale**2 * degrees) * len(events) ** 0.5
    ratio = residuals[0].size / jnp.mean(degrees)
    return EventScale(
        scale=float(scale),
        standard_error=float(spread / (2 * scale * jnp.sum(degrees))),
        by_entry=jnp.sqrt(ratio * jnp.mean(residuals**2, 0)),
        errors=jnp.sqrt(squares / degrees),
        residuals=residuals,
        correlation=_correlation(np.asarray(residuals)),
        decoder_scale=decoder_scale,
    )


def _estimate(
    prior: Prior, events: jax.Array, keys: jax.Array, num_starts: int, decoder_scale: float | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The scale, the residuals of all events and the degrees of freedom left in each."""
    first = jnp.std(events) if decoder_scale is None else jnp.asarray(decoder_scale)
    scale = jnp.maximum(first, 1e-6).astype(events.dtype)
    xi = _starts(prior, scale, events, keys, num_starts)
    residuals = degrees = jnp.zeros(())
    for first_round in (True, False):
        if not first_round:  # try the other starts again, at the scale found so far
            new_starts = _starts(prior, scale, events, keys, num_starts)
            xi = jnp.concatenate([xi, new_starts[:, 1:]], 1)
        for _ in range(MAX_REFITS):
            xi, residuals, num_fitted = _project(prior, scale, events, xi)
            degrees = residuals[0].size - num_fitted
            _check_degrees(degrees)
            new = jnp.sqrt(jnp.sum(_squares(residuals)) / jnp.sum(degrees))
            change = abs(float(new / scale) - 1)
            scale = jnp.maximum(new, 1e-6 * first)
            if change < MIN_CHANGE:
                break
    return scale, residuals, degrees


def _squares(residuals: jax.Array) -> jax.Array:
    return jnp.sum(residuals.reshape(len(residuals), -1) ** 2, 1)


@latent(noise="omit")
def _noisy_event(prior: Prior, scale: jax.Array, x: jax.Array) -> None:
    """A model of an event that equals the generator's up to white noise."""
    event = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(event, scale).to_event(x.ndim), obs=x)


@eqx.filter_jit
def _starts(
    prior: Prior, scale: jax.Array, events: jax.Array, keys: jax.Array, number: int
) -> jax.Array:
    """Coordinates to start from, of shape ``(events, number, size)``."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, key = pair
        return draw_starts(Posterior(_noisy_event, (prior, scale, x)), key, number)[0]

    return jax.lax.map(one, (events, keys))


@eqx.filter_jit
def _project(
    prior: Prior, scale: jax.Array, events: jax.Array, starts: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best coordinates of each event, of shape ``(events, 1, size)``, its residual, and the
    number of degrees of freedom that the latents used.
    """

    def one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, starts = pair
        posterior = Posterior(_noisy_event, (prior, scale, x))
        minima = minimise(posterior, starts, max_steps=100)
        xi = minima.xi[minima.best]
        linear = posterior.linearise(xi)
        unit = jnp.eye(posterior.size, dtype=xi.dtype)
        fisher = jax.vmap(linear.fisher)(unit)
        metric = fisher + jax.vmap(linear.prior)(unit)
        num_fitted = jnp.trace(jnp.linalg.solve(metric, fisher))
        return xi[None], x - posterior.values(xi)["x"], num_fitted

    return jax.lax.map(one, (events, starts), batch_size=BATCH_SIZE)


def _events(prior: Prior, events: ArrayLike) -> jax.Array:
    x = validation.event_value(events, prior.event_shape, prior.event_dtype)
    if x.ndim != len(prior.event_shape) + 1 or len(x) < 2:
        raise ValueError(
            message(
                "estimate_event_scale needs several events",
                expected=f"shape (number, {', '.join(map(str, prior.event_shape))}), at least two",
                got=x.shape,
                remedy="stack held-out events along a first axis",
            )
        )
    if not bool(jnp.all(jnp.isfinite(x))):
        raise ValueError(message("Held-out events are not finite", remedy="drop those with NaN"))
    return x.astype(prior.event_dtype)


def _decoder_scale(prior: Prior) -> float | None:
    scale = prior.event_scale
    if scale is None:
        return None
    return float(jnp.sqrt(jnp.mean(jnp.broadcast_to(scale, prior.event_shape) ** 2)))


def _check_degrees(degrees: jax.Array) -> None:
    if float(jnp.min(degrees)) < 1:
        raise ValueError(
            message(
                "The latents fit an event entirely",
                expected="fewer latents than entries of the event",
                got=f"{float(jnp.min(degrees)):.2g} degrees of freedom left",
                remedy="such a generator misses nothing, so there is no scale to estimate",
            )
        )


def _correlation(residuals: np.ndarray) -> tuple[float, ...]:
    """Correlation of neighbours along each axis of the event."""
    total = np.mean(residuals**2)
    correlations = []
    for axis in range(1, residuals.ndim):
        r = np.moveaxis(residuals, axis, -1)
        correlations.append(
            float(np.mean(r[..., 1:] * r[..., :-1]) / total) if r.shape[-1] > 1 else 0.0
        )
    return tuple(correlations)
