"""`decoder_collapse`: latents that the decoder does not use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

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

ACTIVE = 0.01  # variance of the posterior mean above which a unit is active (Burda et al. 2016)
FORGOTTEN, WEAK = 0.01, 1.0  # KL below which, and sensitivity below which, training gave a unit up
FAINT = 0.1  # KL in nats below which a unit hardly matters
BIT = float(np.log(2))  # KL of all units below which the latent as a whole hardly matters
RELATIVE = 1e-4  # without noise: squared sensitivity over the largest one's
STILL = 1e-6  # squared change of the event over its square, below which nothing moves
HEALTHY, PARTLY, IGNORED = "healthy", "collapsed_units", "ignores_latent"


@dataclass(frozen=True, repr=False)
class DecoderCollapse:
    """What a decoder does with each of its latents. Print it to read what that means.

    Attributes
    ----------
    sensitivity
        For each latent, the root mean square over prior draws of how far a unit step moves the
        event: in units of the decoder's noise where it has one, of the event otherwise.
    singular_values
        The same along principal directions, largest first: roots of the eigenvalues of ``E JᵀJ``.
    latent_directions
        These directions, of shape ``(size, size)``, a row each.
    active
        For each latent, whether the decoder uses it.
    kl
        With an encoder and a standard normal latent: ``E KL(q(z_i | x) || N(0, 1))`` for each
        latent, in nats. None otherwise.
    noise
        Whether `sensitivity` is in units of decoder noise.
    moved
        Standard deviation of the decoded event over its root mean square (1 when its mean is 0).
    """

    sensitivity: jax.Array
    singular_values: jax.Array
    latent_directions: jax.Array
    active: jax.Array
    kl: jax.Array | None
    noise: bool
    moved: float

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
    def faint(self) -> jax.Array:
        """For each latent, whether it is active by little: a KL below 0.1 nats.

        Without an encoder, ``½ log(1 + s²)`` in its place; without decoder noise, never.
        """
        if not self.noise:
            return jnp.zeros_like(self.active)
        return self.active & (_information(self.sensitivity, self.kl) < FAINT)

    @property
    def verdict(self) -> str:
        """``"healthy"``, ``"collapsed_units"`` or ``"ignores_latent"``."""
        if self.num_active == 0:
            return IGNORED
        return HEALTHY if self.num_active == len(self.active) else PARTLY

    def __repr__(self) -> str:
        size, unit = len(self.active), "decoder noise sd" if self.noise else "event units"
        s = np.asarray(self.sensitivity)
        kl = None if self.kl is None else np.asarray(self.kl)
        if self.verdict == IGNORED:
            told = "" if kl is None else (
                f" The encoder learns next to nothing of an event: a KL of {kl.sum():.2g} nats "
                f"over all units, {kl.max():.2g} at most (one bit is 0.69)."
            )  # fmt: skip
            return (
                f"The decoder ignores its latent: no unit of {size} moves the event to speak of "
                f"(at most {s.max():.2g} {unit} a step).{told} Every draw is all but the same event"
                + (" plus noise" if self.noise else "")
                + ", and no data can change it to speak of. Train again: with a smaller β or one "
                "that warms up, a smaller decoder scale, or a weaker decoder."
            )
        lines = []
        if kl is not None and kl.sum() < BIT:
            lines.append(
                f"The encoder learns next to nothing of an event: a KL of {kl.sum():.2g} nats over "
                f"{number(size, 'latent')}, {kl.max():.2g} at most (one bit is 0.69). Train again "
                "with a smaller β, or one that warms up, before you use this prior."
            )
        faint = np.flatnonzero(np.asarray(self.faint))
        barely = "" if not len(faint) else (
            f", {len(faint)} of them barely ({', '.join(map(str, faint))}: less than {FAINT} nats"
            f"{' each' if len(faint) > 1 else ''})"
        )  # fmt: skip
        lines.append(
            f"{self.num_active} of {number(size, 'latent')} active{barely}; effective rank "
            f"{self.effective_rank:.1f}."
        )
        used = np.flatnonzero(np.asarray(self.active))
        lines.append(
            f"  a unit step of an active latent moves the event by {s[used].min():.3g} to "
            f"{s[used].max():.3g} {unit}"
        )
        if self.verdict == PARTLY:
            idle = np.flatnonzero(~np.asarray(self.active))
            lines.append(
                f"  collapsed: {', '.join(map(str, idle))} (at most {s[idle].max():.2g}). Their "
                "posterior is all but the prior whatever the data: leave them out when you count "
                "latents or judge r_hat, or train with a smaller β."
            )
        if kl is not None:
            lines.append(
                f"  encoder: KL of {kl.sum():.1f} nats in all, {kl.min():.2g} to {kl.max():.2g} "
                "a latent"
            )
        lines.append(
            "By first derivatives at prior draws; says nothing of whether the events are any good."
        )
        return "\n".join(lines)


def decoder_collapse(
    prior: Any, key: jax.Array, *, num_draws: int = 64, events: ArrayLike | None = None
) -> DecoderCollapse:
    """Find the latents that a decoder does not use; no data are needed.

    For each latent, ``s_i² = E_z |∂g/∂z_i|²`` over prior draws, in units of the decoder's noise
    where the prior has one (its scale's derivative included). A latent of a linear VAE has a
    posterior mean of variance ``s_i² / (1 + s_i²)``: a unit is active where this exceeds 0.01, the
    threshold of Burda et al.; but not where the encoder's KL is below 0.01 nats and s_i below 1,
    for then training gave it up and what is left in the decoder is small and random. Where the KL
    of all units together is below one bit (0.69 nats), the latent hardly matters, and units below
    0.1 nats and s_i of 1 are collapsed, too (without an encoder, by ``½ log(1 + s²)``, a linear
    VAE's KL). Without noise, a unit is active where ``s_i²`` exceeds 1e-4 of the largest.

    Parameters
    ----------
    prior
        A prior with an empty batch shape.
    key
        Random key of the draws.
    num_draws
        Prior draws over which the decoder is examined.
    events
        Events of shape ``(number, *event_shape)`` at which the encoder's KL is taken: held-out
        ones. None: events drawn from the prior.

    Returns
    -------
    DecoderCollapse
        ``.num_active``, ``.verdict``; prints as a finding.

    Raises
    ------
    TypeError, ValueError
        When `prior` is no prior, or a batch of them.

    Notes
    -----
    **Fails when** latents are used together in a rotated frame: each is then active, and only
    `singular_values` show the collapsed direction. A unit that matters far from the prior's
    typical set only is missed.

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
    >>> found.num_active, found.verdict
    (2, 'collapsed_units')
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
    moved = _moved(generator(core), points)
    kl = _kl(core, event_key, events, num_draws)
    if not noise:
        active = (squares > RELATIVE * jnp.max(squares)) & (moved**2 > STILL)
    else:
        active = squares / (1 + squares) > ACTIVE
        nats = _information(jnp.sqrt(squares), kl)
        total = jnp.sum(nats if kl is not None else _information(singular, None))
        least = jnp.where(total < BIT, FAINT, FORGOTTEN if kl is not None else 0.0)
        active = active & ~((nats < least) & (squares < WEAK**2))
    return DecoderCollapse(jnp.sqrt(squares), singular, directions, active, kl, noise, float(moved))


@eqx.filter_jit
def _moved(posterior: Posterior, points: jax.Array) -> jax.Array:
    """Standard deviation of the decoded event over its root mean square."""

    def add(sums: Any, point: jax.Array) -> tuple[Any, None]:
        x = posterior.values(point)["x"]
        return (sums[0] + (x - first), sums[1] + (x - first) ** 2, sums[2] + x**2), None

    first = posterior.values(points[0])["x"]
    zero = jnp.zeros_like(first)
    (total, squares, all_squares), _ = jax.lax.scan(add, (zero, zero, zero), points)
    n = points.shape[0]
    variance = jnp.sum(jnp.maximum(squares / n - (total / n) ** 2, 0))
    return jnp.sqrt(variance / jnp.maximum(jnp.sum(all_squares) / n, jnp.finfo(zero.dtype).tiny))


def _information(sensitivity: jax.Array, kl: jax.Array | None) -> jax.Array:
    """The KL of each unit; a linear VAE's where there is no encoder."""
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
