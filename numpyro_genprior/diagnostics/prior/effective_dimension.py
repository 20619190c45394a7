"""`effective_dimension`: how many directions a generator has, and flows that imitate a manifold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.prior.prior_posterior import bare_prior, generator
from numpyro_genprior.errors import message
from numpyro_genprior.infer.linalg.limits import MAX_JACOBIAN
from numpyro_genprior.infer.posterior import Posterior

SQUEEZED = 100.0  # condition number of a flow's Jacobian above which it imitates a manifold
FULL, SINGULAR, MANIFOLD = "full", "singular", "imitates_manifold"


@dataclass(frozen=True, repr=False)
class EffectiveDimension:
    """The spectrum of a generator's Jacobian over prior draws. Print it to read what it means.

    Attributes
    ----------
    spectrum
        Singular values at each draw, largest first, of shape ``(draws, k)``; in event units a
        prior standard deviation.
    event_size, latent_size
        Numbers of entries of an event and of the latent.
    exact
        Whether the prior has an exact density (its map is a diffeomorphism).
    """

    spectrum: jax.Array
    event_size: int
    latent_size: int
    exact: bool

    @property
    def dimensions(self) -> jax.Array:
        """At each draw ``exp(-Σ p log p)`` of the shares ``p_i = s_i² / Σ s²``."""
        squares = self.spectrum**2
        total = jnp.sum(squares, -1, keepdims=True)
        shares = squares / jnp.broadcast_to(jnp.maximum(total, 1e-38), squares.shape)
        return jnp.exp(jnp.sum(jax.scipy.special.entr(shares), -1)) * (total[:, 0] > 0)

    @property
    def dimension(self) -> float:
        """Mean of `dimensions`: how many directions carry the event's local variance."""
        return float(jnp.mean(self.dimensions))

    @property
    def condition_numbers(self) -> jax.Array:
        """Largest over smallest singular value at each draw."""
        return self.spectrum[:, 0] / self.spectrum[:, -1]

    @property
    def condition_number(self) -> float:
        """Median of `condition_numbers`."""
        return float(jnp.median(self.condition_numbers))

    @property
    def log_dets(self) -> jax.Array:
        """``Σ log s_i`` at each draw, in nats: ``log |det J|`` of a square map."""
        return jnp.sum(jnp.log(self.spectrum), -1)

    @property
    def verdict(self) -> str:
        """``"full"``, ``"singular"`` (fewer latents than the event has entries) or
        ``"imitates_manifold"`` (a diffeomorphism squeezed by more than 100).
        """
        if self.latent_size < self.event_size or not bool(jnp.all(self.spectrum[:, -1] > 0)):
            return SINGULAR
        return MANIFOLD if self.exact and self.condition_number > SQUEEZED else FULL

    def __repr__(self) -> str:
        condition, draws = self.condition_number, len(self.spectrum)
        lines = [
            f"{self.dimension:.1f} effective directions of {self.latent_size} latents, in events "
            f"of {self.event_size} entries (over {draws} prior draws)."
        ]
        if self.verdict == SINGULAR:
            lines.append(
                "  Decoder noise apart, the law lies on a manifold of fewer dimensions than the "
                "event: it has no density, and what is off the manifold is impossible under it. "
                'The noise of a `VAEPrior` is its width (not with noise="omit"); '
                "`GANPrior.thicken(scale)`, with `estimate_event_scale` of held-out events, gives "
                "one to others."
            )
        if self.exact:
            log_dets = np.asarray(self.log_dets)
            lines.append(
                f"  condition number {condition:.3g} (median); log |det J| "
                f"{log_dets.mean():.1f} ± {log_dets.std():.1f} nats"
            )
        if self.verdict == MANIFOLD:
            lines.append(
                "  This flow squeezes its base to imitate a manifold, which no diffeomorphism "
                "can: its density runs away there, NUTS needs tiny steps, and log_prob of a "
                "held-out event hangs on the last digit. Model the manifold itself: a VAE of "
                "low noise, a GAN with `thicken(scale)`, or train the flow on data with noise."
            )
        return "\n".join(lines)


def effective_dimension(prior: Any, key: jax.Array, *, num_draws: int = 32) -> EffectiveDimension:
    """The spectrum of J_g over prior draws: how many directions there are, and how squeezed.

    Parameters
    ----------
    prior
        A prior with an empty batch shape.
    key
        Random key of the draws.
    num_draws
        Number of draws.

    Returns
    -------
    EffectiveDimension
        ``.dimension``, ``.condition_number``, ``.log_dets``, ``.verdict``; prints as a finding.

    Raises
    ------
    TypeError, ValueError
        When `prior` is no prior or a batch of them, or its Jacobian has more than 2·10⁷ entries.

    Notes
    -----
    Jacobians are in coordinates that are standard normal under the prior, decoder noise apart.
    The effective number is the exponential of the entropy of the shares of variance (Roy,
    Vetterli, EUSIPCO 2007).

    **Fails when** the latent law is not a plain normal: its own map to standard normals is then
    part of the Jacobian. In single precision condition numbers beyond 10⁶ are rounding.

    References
    ----------
    Cornish, Caterini, Deligiannidis, Doucet, Relaxing bijectivity constraints with continuously
    indexed normalising flows, 2020 (a homeomorphism cannot reach another topology, and its
    bi-Lipschitz constant diverges). Behrmann et al., Understanding and mitigating exploding
    inverses in invertible neural networks, 2021.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GANPrior(lambda z: jnp.stack([z[0], z[1], z[0] + z[1]]), 2)
    >>> found = ngp.diagnostics.effective_dimension(prior, jax.random.key(0))
    >>> round(found.dimension, 3), found.verdict
    (1.755, 'singular')
    """
    core = bare_prior(prior, "effective_dimension")
    if num_draws < 1:
        raise ValueError(
            message(
                "effective_dimension looks at draws",
                expected="num_draws of at least 1",
                got=num_draws,
                remedy="leave num_draws=32",
            )
        )
    posterior = generator(core)
    event_size = int(np.prod(core.event_shape))
    if posterior.size * event_size > MAX_JACOBIAN:
        raise ValueError(
            message(
                "The Jacobian is too large to form",
                expected=f"at most {MAX_JACOBIAN} entries",
                got=f"{event_size} × {posterior.size}",
                remedy="use lipschitz, or sensitivity with rank=",
            )
        )
    spectrum = _spectra(posterior, validation.random_key(key), num_draws)
    return EffectiveDimension(spectrum, event_size, posterior.size, core.density == "exact")


@eqx.filter_jit
def _spectra(posterior: Posterior, key: jax.Array, number: int) -> jax.Array:
    def one(key: jax.Array) -> jax.Array:
        xi = posterior.draw(key)
        push = jax.linearize(lambda xi: posterior.values(xi)["x"], xi)[1]
        rows = jax.vmap(push)(jnp.eye(posterior.size, dtype=xi.dtype))
        return jnp.linalg.svd(rows.reshape(posterior.size, -1), compute_uv=False)

    return jax.lax.map(one, jax.random.split(key, number))
