"""`effective_dimension`: how many directions a generator has, and flows that imitate a manifold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.prior.prior_posterior import bare_prior, generator
from numpyro_genprior.errors import message
from numpyro_genprior.infer.linalg.limits import MAX_JACOBIAN
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MAX_FULL_CONDITION = 100.0  # a flow with a larger condition number imitates a manifold
FULL, SINGULAR, MANIFOLD = "full", "singular", "imitates_manifold"


@dataclass(frozen=True, repr=False, eq=False)
class EffectiveDimension(Result):
    """The spectrum of a generator's Jacobian over prior draws. Print it to read the finding.

    Attributes
    ----------
    spectrum
        Singular values at each draw, largest first, of shape ``(draws, k)``, in event units per
        prior standard deviation.
    event_size, latent_size
        Numbers of entries of an event and of the latent.
    exact
        Whether the prior has an exact density (its map is a diffeomorphism).
    """

    spectrum: Float[Array, "draws k"]
    event_size: int
    latent_size: int
    exact: bool

    @property
    def dimensions(self) -> Float[Array, " draws"]:
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
    def condition_numbers(self) -> Float[Array, " draws"]:
        """Largest over smallest singular value at each draw."""
        return self.spectrum[:, 0] / self.spectrum[:, -1]

    @property
    def condition_number(self) -> float:
        """Median of `condition_numbers`."""
        return float(jnp.median(self.condition_numbers))

    @property
    def log_dets(self) -> Float[Array, " draws"]:
        """``Σ log s_i`` at each draw, in nats: ``log |det J|`` of a square map."""
        return jnp.sum(jnp.log(self.spectrum), -1)

    @property
    def verdict(self) -> str:
        """``"full"``, ``"singular"`` (fewer latents than the event has entries) or
        ``"imitates_manifold"`` (a diffeomorphism with a condition number above 100).
        """
        if self.latent_size < self.event_size or not bool(jnp.all(self.spectrum[:, -1] > 0)):
            return SINGULAR
        squeezed = self.exact and self.condition_number > MAX_FULL_CONDITION
        return MANIFOLD if squeezed else FULL

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if the condition number of a flow is beyond the precision of its numbers."""
        limit = 0.1 / float(jnp.finfo(self.spectrum.dtype).eps)
        if not self.exact or self.condition_number < limit:
            return ()
        return (
            f"A condition number above {limit:.0e} is rounding error in {self.spectrum.dtype}: "
            "compute it with jax_enable_x64.",
        )

    def __str__(self) -> str:
        lines = [
            f"{self.dimension:.1f} effective directions of {self.latent_size} latents, in events "
            f"of {self.event_size} entries (over {len(self.spectrum)} prior draws)."
        ]
        if self.verdict == SINGULAR:
            lines.append(
                "  Apart from decoder noise, the distribution lies on a manifold of fewer "
                "dimensions than the event: it has no density, and events off the manifold are "
                "impossible under it. The decoder noise of a VAE gives it a width (not with "
                'noise="omit"); for others use `thicken(scale)`, with `estimate_event_scale` of '
                "held-out events."
            )
        if self.exact:
            log_dets = np.asarray(self.log_dets)
            lines.append(
                f"  condition number {self.condition_number:.3g} (median); log |det J| "
                f"{log_dets.mean():.1f} ± {log_dets.std():.1f} nats"
            )
        if self.verdict == MANIFOLD:
            lines.append(
                "  This flow squeezes its base distribution to imitate a manifold, which no "
                "diffeomorphism can do: its density grows without bound there, NUTS needs tiny "
                "steps, and log_prob of a held-out event depends on its last digits. Model the "
                "manifold itself: a VAE of low noise, a GAN with `thicken(scale)`, or train the "
                "flow on data with noise."
            )
        return "\n".join([*lines, *self.warnings])

    def __repr__(self) -> str:
        return (
            f"EffectiveDimension({self.verdict!r}, dimension={self.dimension:.1f} of "
            f"{self.latent_size}, event_size={self.event_size})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw `numpyro_genprior.plots.jacobian_spectrum`."""
        from numpyro_genprior import plots

        return plots.jacobian_spectrum(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """The spectrum by ``draw`` and ``direction``, and quantities computed from it."""
        return dataset(
            {
                "spectrum": (("draw", "direction"), self.spectrum),
                "dimensions": (("draw",), self.dimensions),
                "condition_numbers": (("draw",), self.condition_numbers),
                "log_dets": (("draw",), self.log_dets),
            },
            attrs={
                "verdict": self.verdict,
                "event_size": self.event_size,
                "latent_size": self.latent_size,
            },
        )


def effective_dimension(
    prior: Distribution, key: jax.Array, *, num_draws: int = 32
) -> EffectiveDimension:
    """Count the directions of a generator, and measure how strongly it squeezes some of them.

    The spectrum of the Jacobian of g at prior draws, in coordinates that are standard normal under
    the prior. Decoder noise is left out.

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
        ``.dimension``, ``.condition_number``, ``.log_dets``, ``.verdict``; ``print`` states the
        finding.

    Raises
    ------
    TypeError
        If `prior` is not a prior.
    ValueError
        If `prior` has a batch shape, `num_draws` is below 1, or the Jacobian has more than 2·10⁷
        entries.

    Notes
    -----
    The effective number is the exponential of the entropy of the shares of variance (Roy,
    Vetterli, EUSIPCO 2007).

    **Fails when** the latent distribution is not normal: its own map to standard normals is then
    part of the Jacobian. In single precision condition numbers above 10⁶ are rounding error.

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
    >>> ngp.diagnostics.effective_dimension(prior, jax.random.key(0))
    EffectiveDimension('singular', dimension=1.8 of 2, event_size=3)
    """
    core = bare_prior(prior, "effective_dimension")
    if num_draws < 1:
        raise ValueError(
            message(
                "effective_dimension needs prior draws",
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
