"""`estimate_event_scale`: what a generator misses of events that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.prior.prior_posterior import bare_prior
from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.optimize.minimise import minimise
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.priors import Prior
from numpyro_genprior.sites import latent

ROUNDS, SETTLED = 40, 2e-3  # most refits of all events, and the relative change that ends them
BATCH = 32  # events at a time
COLOURED = 0.1  # correlation of neighbours from which on the error is not called white


@dataclass(frozen=True, repr=False)
class EventScale:
    """What a generator misses, a pixel. Print it to read what that means; it is a number, too.

    Attributes
    ----------
    scale
        Standard deviation of an entry of the event about the best event of the generator.
    standard_error
        Of `scale`, from the spread over events.
    by_entry
        The same for each entry, of the event's shape; its root mean square is `scale`.
    errors
        The same for each held-out event.
    residuals
        Events minus the generator's best, of shape ``(number, *event_shape)``.
    correlation
        Of the residuals of neighbours, along each axis of the event: 0 for a white error.
    own_scale
        Root mean square of the prior's own decoder noise; None where it has none, or one that
        depends on the latent.
    """

    scale: float
    standard_error: float
    by_entry: jax.Array
    errors: jax.Array
    residuals: jax.Array
    correlation: tuple[float, ...]
    own_scale: float | None

    def __float__(self) -> float:
        return self.scale

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.scale, dtype or self.errors.dtype)

    def __repr__(self) -> str:
        errors, entries = np.asarray(self.errors), np.asarray(self.by_entry)
        lines = [
            f"The generator misses {self.scale:.3g} ± {self.standard_error:.1g} an entry of a "
            f"held-out event (standard deviation, {len(errors)} events).",
            f"  by event {errors.min():.3g} to {errors.max():.3g}; by entry {entries.min():.3g} "
            f"to {entries.max():.3g}",
        ]
        if self.own_scale is not None:
            lines.append(f"  the decoder's own noise says {self.own_scale:.3g}")
        if any(abs(c) > COLOURED for c in self.correlation):
            listed = ", ".join(f"{c:.2f}" for c in self.correlation)
            lines.append(
                f"  neighbours miss together (correlation {listed} along the axes): data that sum "
                "over many entries are missed by more than a white error of this size"
            )
        lines.append(
            "Of events like these, and of the best event that the search found: others, or a "
            "better search, give another number."
        )
        return "\n".join(lines)


def estimate_event_scale(
    prior: Any, key: jax.Array, held_out_events: ArrayLike, *, num_starts: int = 4
) -> EventScale:
    """Measure the representation error of a generator on events that it was not trained on.

    For each event x the best latent, ``argmin |x - g(z)|² / (2 s²) + |z|² / 2``, and s where it
    agrees with what is left over: ``s² = Σ |x - g(z)|² / Σ (n - Σ_i s_i² / (1 + s_i²))`` with n
    entries of an event and s_i the singular values of ``J_g / s``. The second sum counts what the
    latents fitted; for a linear generator with white noise it makes s² unbiased.

    Parameters
    ----------
    prior
        A prior with an empty batch shape, whose events are images of a smaller latent: a
        `GANPrior` or a `VAEPrior`. Of a VAE the decoder's mean is taken.
    key
        Random key of the starts.
    held_out_events
        Of shape ``(number, *event_shape)``, two at least; a hundred give a few percent. From the
        data that you will see, and not from the training set.
    num_starts
        Descents for each event; the first is the encoder's guess where there is one.

    Returns
    -------
    EventScale
        ``.scale``, and itself a number: pass it as ``event_scale=`` of
        `numpyro_genprior.operators.MarginalNormal`.

    Raises
    ------
    TypeError, ValueError
        When the prior has a density (nothing is out of its range), or is a batch; when events have
        another shape, are not finite, or fewer than two; when the latent is as large as the event.

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
                f"estimate_event_scale: a {type(core).__name__} has a density, no range",
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
    own = _own_scale(core)
    start = jnp.std(events) if own is None else jnp.asarray(own)
    scale = jnp.maximum(start, 1e-6).astype(events.dtype)
    found = _starts(core, scale, events, keys, num_starts)
    residuals = squares = left = jnp.zeros(())
    for search in (True, False):  # all other starts again at the scale that the first search led to
        if not search:
            again = _starts(core, scale, events, keys, num_starts)
            found = jnp.concatenate([found, again[:, 1:]], 1)
        for _ in range(ROUNDS):
            found, residuals, fitted = _project(core, scale, events, found)
            left = residuals[0].size - fitted
            squares = jnp.sum(residuals.reshape(len(events), -1) ** 2, 1)
            _check_degrees(left)
            new = jnp.sqrt(jnp.sum(squares) / jnp.sum(left))
            change = abs(float(new / scale) - 1)
            scale = jnp.maximum(new, 1e-6 * start)
            if change < SETTLED:
                break
    spread = jnp.std(squares - scale**2 * left) * len(events) ** 0.5
    ratio = residuals[0].size / jnp.mean(left)
    return EventScale(
        scale=float(scale),
        standard_error=float(spread / (2 * scale * jnp.sum(left))),
        by_entry=jnp.sqrt(ratio * jnp.mean(residuals**2, 0)),
        errors=jnp.sqrt(squares / left),
        residuals=residuals,
        correlation=_correlation(np.asarray(residuals)),
        own_scale=own,
    )


@latent(noise="omit")
def _nearly(prior: Any, scale: Any, x: jax.Array) -> None:
    event = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(event, scale).to_event(x.ndim), obs=x)


@eqx.filter_jit
def _starts(prior: Prior, scale: Any, events: jax.Array, keys: Any, number: int) -> jax.Array:
    def one(pair: Any) -> jax.Array:
        x, key = pair
        return draw_starts(Posterior(_nearly, (prior, scale, x)), key, number)[0]

    return jax.lax.map(one, (events, keys))


@eqx.filter_jit
def _project(prior: Prior, scale: Any, events: jax.Array, starts: jax.Array) -> Any:
    """The best coordinates of each event, of shape ``(events, 1, size)``, what they leave of it,
    and how many parameters they have fitted.
    """

    def one(pair: Any) -> Any:
        x, starts = pair
        posterior = Posterior(_nearly, (prior, scale, x))
        minima = minimise(posterior, starts, max_steps=100)
        xi = minima.xi[minima.best]
        linear = posterior.linearise(xi)
        unit = jnp.eye(posterior.size, dtype=xi.dtype)
        fisher = jax.vmap(linear.fisher)(unit)
        metric = fisher + jax.vmap(linear.prior)(unit)
        fitted = jnp.trace(jnp.linalg.solve(metric, fisher))
        return xi[None], x - posterior.values(xi)["x"], fitted

    return jax.lax.map(one, (events, starts), batch_size=BATCH)


def _events(prior: Prior, events: ArrayLike) -> jax.Array:
    x = validation.event_value(events, prior.event_shape, prior.event_dtype)
    if x.ndim != len(prior.event_shape) + 1 or len(x) < 2:
        raise ValueError(
            message(
                "estimate_event_scale needs several events",
                expected=f"shape (number, {', '.join(map(str, prior.event_shape))}), two at least",
                got=x.shape,
                remedy="stack held-out events along a first axis",
            )
        )
    if not bool(jnp.all(jnp.isfinite(x))):
        raise ValueError(message("Held-out events are not finite", remedy="drop those with NaN"))
    return x.astype(prior.event_dtype)


def _own_scale(prior: Prior) -> float | None:
    scale = prior.event_scale
    if scale is None:
        return None
    return float(jnp.sqrt(jnp.mean(jnp.broadcast_to(scale, prior.event_shape) ** 2)))


def _check_degrees(left: jax.Array) -> None:
    if float(jnp.min(left)) < 1:
        raise ValueError(
            message(
                "The latents fit an event entirely",
                expected="fewer latents than entries of the event",
                got=f"{float(jnp.min(left)):.2g} degrees of freedom left",
                remedy="such a generator misses nothing: there is no scale to estimate",
            )
        )


def _correlation(residuals: np.ndarray) -> tuple[float, ...]:
    """Of neighbours along each axis of the event."""
    total = np.mean(residuals**2)
    found = []
    for axis in range(1, residuals.ndim):
        r = np.moveaxis(residuals, axis, -1)
        found.append(float(np.mean(r[..., 1:] * r[..., :-1]) / total) if r.shape[-1] > 1 else 0.0)
    return tuple(found)
