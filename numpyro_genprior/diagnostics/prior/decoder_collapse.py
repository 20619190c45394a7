"""`decoder_collapse`: latents that the decoder does not use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Distribution

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.fisher_spectrum import directions_dense
from numpyro_genprior.diagnostics.prior.prior_posterior import (
    bare_prior,
    decoder,
    generator,
    prior_draws,
)
from numpyro_genprior.errors import message
from numpyro_genprior.infer.map_result import number
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.priors import Prior, StandardNormal
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

# Thresholds. KL divergences and information are in nats.
ACTIVE_VARIANCE = 0.01  # variance of the posterior mean above which a unit is active (Burda et al.)
ABANDONED_KL, ABANDONED_SENSITIVITY = 0.01, 1.0  # a unit below both was switched off in training
BARELY_ACTIVE_KL = 0.1  # below this a unit contributes little
ONE_BIT = float(np.log(2))  # KL of all units together below which the latent is hardly used
MIN_RELATIVE_SQUARE = 1e-4  # without noise: squared sensitivity relative to the largest
MIN_RELATIVE_CHANGE = 1e-6  # without noise: squared change of the event relative to its square
HEALTHY, PARTLY, IGNORED = "healthy", "collapsed_units", "ignores_latent"


@dataclass(frozen=True, repr=False, eq=False)
class DecoderCollapse(Result):
    """How much a decoder uses each of its latents. Print it to read the finding.

    Attributes
    ----------
    sensitivity
        For each latent, the root mean square over prior draws of how far a unit step moves the
        event: in units of the decoder's noise if it has any, of the event otherwise.
    singular_values
        The same along principal directions, largest first: square roots of the eigenvalues of
        ``E JᵀJ``.
    latent_directions
        These directions, of shape ``(size, size)``, one per row.
    active
        For each latent, whether the decoder uses it.
    kl
        With an encoder and a standard normal latent: ``E KL(q(z_i | x) || N(0, 1))`` for each
        latent, in nats. None otherwise.
    noise
        Whether `sensitivity` is in units of decoder noise.
    relative_sd
        Standard deviation of the decoded event over its root mean square (1 if its mean is 0).
    """

    sensitivity: Float[Array, " size"]
    singular_values: Float[Array, " size"]
    latent_directions: Float[Array, "size size"]
    active: Bool[Array, " size"]
    kl: Float[Array, " size"] | None
    noise: bool
    relative_sd: float

    @property
    def num_active(self) -> int:
        """Number of active latents."""
        return int(jnp.sum(self.active))

    @property
    def effective_rank(self) -> float:
        """``exp(-Σ p log p)`` of the shares p of ``E JᵀJ``'s eigenvalues (Roy, Vetterli 2007)."""
        shares = np.asarray(self.singular_values, float) ** 2
        if not shares.sum() > 0:
            return 0.0
        shares = shares[shares > 0] / shares.sum()
        return float(np.exp(-np.sum(shares * np.log(shares))))

    @property
    def barely_active(self) -> Bool[Array, " size"]:
        """For each latent, whether it is active but with a KL below 0.1 nats.

        Without an encoder, ``½ log(1 + s²)`` replaces the KL. Always False for a prior
        without decoder noise.
        """
        if not self.noise:
            return jnp.zeros_like(self.active)
        return self.active & (_information(self.sensitivity, self.kl) < BARELY_ACTIVE_KL)

    @property
    def verdict(self) -> str:
        """``"healthy"``, ``"collapsed_units"`` or ``"ignores_latent"``."""
        if self.num_active == 0:
            return IGNORED
        return HEALTHY if self.num_active == len(self.active) else PARTLY

    @property
    def unit(self) -> str:
        """Unit of `sensitivity`: ``"decoder noise sd"`` or ``"event units"``."""
        return "decoder noise sd" if self.noise else "event units"

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if the encoder extracts almost no information about events."""
        if self.kl is None or not float(jnp.sum(self.kl)) < ONE_BIT:
            return ()
        advice = (
            ""
            if self.verdict == IGNORED
            else " Train again with a smaller β, or with β warm-up, before you use this prior."
        )
        return (self._no_information() + advice,)

    def _no_information(self) -> str:
        kl = np.asarray(self.kl)
        return (
            f"The encoder extracts almost no information: a KL of {kl.sum():.2g} nats over "
            f"{number(len(kl), 'latent')}, {kl.max():.2g} at most (one bit is 0.69)."
        )

    def __str__(self) -> str:
        return self._ignored() if self.verdict == IGNORED else self._used()

    def _ignored(self) -> str:
        encoder = "" if self.kl is None else f" {self._no_information()}"
        return (
            f"The decoder ignores its latent: no unit of {len(self.active)} moves the event "
            f"noticeably (at most {float(jnp.max(self.sensitivity)):.2g} {self.unit} a step)."
            f"{encoder} Every draw is practically the same event"
            + (" plus noise" if self.noise else "")
            + ", and no data can change it. Train again: with a smaller β or β warm-up, a "
            "smaller decoder scale, or a weaker decoder."
        )

    def _used(self) -> str:
        s, active = np.asarray(self.sensitivity), np.asarray(self.active)
        barely_active = np.flatnonzero(np.asarray(self.barely_active))
        idle, barely = np.flatnonzero(~active), ""
        if len(barely_active):
            each = " each" if len(barely_active) > 1 else ""
            names = ", ".join(map(str, barely_active))
            barely = (
                f", {len(barely_active)} of them barely ({names}: less than {BARELY_ACTIVE_KL} "
                f"nats{each})"
            )
        lines = [
            *self.warnings,
            f"{self.num_active} of {number(len(active), 'latent')} active{barely}; effective rank "
            f"{self.effective_rank:.1f}.",
            f"  a unit step of an active latent moves the event by {s[active].min():.3g} to "
            f"{s[active].max():.3g} {self.unit}",
        ]
        if len(idle):
            lines.append(
                f"  collapsed: {', '.join(map(str, idle))} (at most {s[idle].max():.2g}). Their "
                "posterior is close to the prior whatever the data: leave them out when you count "
                "latents or judge r_hat, or train with a smaller β."
            )
        if self.kl is not None:
            kl = np.asarray(self.kl)
            lines.append(
                f"  encoder: KL of {kl.sum():.1f} nats in all, {kl.min():.2g} to {kl.max():.2g} "
                "a latent"
            )
        lines.append(
            "From first derivatives at prior draws; it does not say whether the events look right."
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"DecoderCollapse({self.verdict!r}, num_active={self.num_active} of "
            f"{len(self.active)}, effective_rank={self.effective_rank:.1f})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw `numpyro_genprior.plots.decoder_collapse`."""
        from numpyro_genprior import plots

        return plots.decoder_collapse(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """The sensitivities by ``latent``, and the principal directions by ``direction``."""
        encoder = {} if self.kl is None else {"kl": (("latent",), self.kl)}
        return dataset(
            {
                "sensitivity": (("latent",), self.sensitivity),
                "active": (("latent",), self.active),
                "barely_active": (("latent",), self.barely_active),
                **encoder,
                "singular_values": (("direction",), self.singular_values),
                "latent_directions": (("direction", "latent"), self.latent_directions),
            },
            attrs={"verdict": self.verdict, "unit": self.unit, "relative_sd": self.relative_sd},
        )


def decoder_collapse(
    prior: Distribution,
    key: jax.Array,
    *,
    num_draws: int = 64,
    events: ArrayLike | None = None,
) -> DecoderCollapse:
    """Find the latents that a decoder does not use; needs no data.

    For each latent, ``s_i² = E_z |∂g/∂z_i|²`` over prior draws, in units of the decoder's noise
    if the prior has any (including the derivative of its scale). In a linear VAE the posterior
    mean of a latent has variance ``s_i² / (1 + s_i²)``.

    - With decoder noise, a unit is active if this variance exceeds 0.01, the threshold of Burda
      et al. It is not active if the encoder's KL is below 0.01 nats and s_i below 1: training has
      then switched it off, and its weights in the decoder are small and random.
    - If the KL of all units together is below one bit (0.69 nats), the latent is hardly used, and
      units with a KL below 0.1 nats and s_i below 1 count as collapsed, too. Without an encoder
      the KL is that of a linear VAE, ``½ log(1 + s²)``.
    - Without decoder noise, a unit is active if ``s_i²`` exceeds 1e-4 of the largest.

    Parameters
    ----------
    prior
        A prior with an empty batch shape.
    key
        Random key of the draws.
    num_draws
        Number of prior draws at which the decoder is examined.
    events
        Events of shape ``(number, *event_shape)``, preferably held out, at which the encoder's KL
        is evaluated. None: events drawn from the prior.

    Returns
    -------
    DecoderCollapse
        ``.num_active``, ``.verdict``; ``print`` states the finding.

    Raises
    ------
    TypeError
        If `prior` is not a prior.
    ValueError
        If `prior` has a batch shape, or `num_draws` is below 2.

    Notes
    -----
    **Fails when** latents are used together in a rotated frame: each is then active, and only
    `singular_values` show the collapsed direction. A unit that matters only far from the prior's
    typical set is missed.

    References
    ----------
    Burda, Grosse, Salakhutdinov, Importance weighted autoencoders, 2016 (active units). Lucas,
    Tucker, Grosse, Norouzi, Don't blame the ELBO! A linear VAE perspective on posterior collapse,
    2019 (collapse by the KL of a unit).

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.VAEPrior(lambda z: jnp.stack([z[0], 2 * z[1], z[0]]), 3, scale=0.1)
    >>> found = ngp.diagnostics.decoder_collapse(prior, jax.random.key(0))
    >>> found
    DecoderCollapse('collapsed_units', num_active=2 of 3, effective_rank=1.9)
    """
    core = bare_prior(prior, "decoder_collapse")
    if num_draws < 2:
        raise ValueError(
            message(
                "decoder_collapse averages over draws",
                expected="num_draws of at least 2",
                got=num_draws,
                remedy="leave num_draws=64",
            )
        )
    draw_key, event_key = jax.random.split(validation.random_key(key))
    noise = core.density == "conditional"
    posterior = decoder(core) if noise else generator(core)
    points = prior_draws(posterior, draw_key, num_draws)
    singular, directions = directions_dense(posterior, points)
    squares = jnp.sum((singular[:, None] * directions) ** 2, axis=0)
    relative_sd = _relative_sd(generator(core), points)
    kl = _kl(core, event_key, events, num_draws)
    if noise:
        active = _active_with_noise(squares, singular, kl)
    else:
        active = squares > MIN_RELATIVE_SQUARE * jnp.max(squares)
        active = active & (relative_sd**2 > MIN_RELATIVE_CHANGE)
    return DecoderCollapse(
        jnp.sqrt(squares), singular, directions, active, kl, noise, float(relative_sd)
    )


def _active_with_noise(
    squares: Float[Array, " size"],
    singular_values: Float[Array, " size"],
    kl: Float[Array, " size"] | None,
) -> Bool[Array, " size"]:
    active = squares / (1 + squares) > ACTIVE_VARIANCE
    nats = _information(jnp.sqrt(squares), kl)
    total = jnp.sum(_information(singular_values, None) if kl is None else kl)
    min_kl = jnp.where(total < ONE_BIT, BARELY_ACTIVE_KL, 0.0 if kl is None else ABANDONED_KL)
    return active & ~((nats < min_kl) & (squares < ABANDONED_SENSITIVITY**2))


@eqx.filter_jit
def _relative_sd(posterior: Posterior, points: jax.Array) -> jax.Array:
    """Standard deviation of the decoded event over its root mean square."""

    def add(sums: tuple[jax.Array, ...], point: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        x = posterior.values(point)["x"]
        return (sums[0] + (x - first), sums[1] + (x - first) ** 2, sums[2] + x**2), None

    first = posterior.values(points[0])["x"]
    zero = jnp.zeros_like(first)
    (total, squares, all_squares), _ = jax.lax.scan(add, (zero, zero, zero), points)
    n = points.shape[0]
    variance = jnp.sum(jnp.maximum(squares / n - (total / n) ** 2, 0))
    return jnp.sqrt(variance / jnp.maximum(jnp.sum(all_squares) / n, jnp.finfo(zero.dtype).tiny))


def _information(
    sensitivity: Float[Array, " size"], kl: Float[Array, " size"] | None
) -> Float[Array, " size"]:
    """The KL of each unit; that of a linear VAE if there is no encoder."""
    return 0.5 * jnp.log1p(sensitivity**2) if kl is None else kl


def _kl(prior: Prior, key: jax.Array, events: ArrayLike | None, number: int) -> jax.Array | None:
    standard = isinstance(prior.latent, StandardNormal)
    if prior.density != "conditional" or prior.encoder is None or not standard:
        return None
    x = prior.sample(key, (number,)) if events is None else jnp.asarray(events)
    x = validation.event_value(x, prior.event_shape, prior.event_dtype)
    x = x.reshape(-1, *prior.event_shape)
    loc, scale = prior.encode(x)
    kl = 0.5 * (loc**2 + scale**2 - 1) - jnp.log(scale)
    return jnp.mean(kl, axis=0).ravel()
