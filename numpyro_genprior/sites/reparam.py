"""`LatentReparam`: reparameterise one site by its latent."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpyro
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.infer.reparam import Reparam

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior, StandardNormal
from numpyro_genprior.sites.obs_mask import without_obs_mask
from numpyro_genprior.sites.wrappers import rewrap, unwrap

Noise: TypeAlias = Literal["auto", "noncentered", "centered", "omit"]

LATENT_OF = "latent_of"
"""Key of ``infer`` that marks the latents made here. Its value names the event; for a nested
latent also the events that this event is a latent of: ``("x_latent", "x")``."""
NOISE_OF = "noise_of"
"""Key of ``infer`` that marks the decoder noise made here. Its value names the event."""


class LatentReparam(Reparam):
    """Sample the latent of a prior, and decode the event from it.

    For use with NumPyro's own ``handlers.reparam``; `latent` applies it to every prior of a model
    that needs it. A latent that is itself a prior without an exact density is treated the same
    way, as ``x_latent_latent``.

    Parameters
    ----------
    noise
        For a prior with decoder noise (`VAEPrior`), how the noise enters the model:
        ``"noncentered"`` (white noise in the sample site ``x_noise``), ``"centered"`` (``x`` is a
        sample site given ``x_latent``; accepts ``obs``) or ``"omit"`` (x = g(z)). ``"auto"``:
        centered if the event is observed, else noncentered.
    explicit
        Reparameterise a nested latent even if its density is exact.

    Raises
    ------
    ValueError
        If the site cannot be reparameterised: ``obs`` on an event without a density, noncentered
        noise with ``obs``, a distribution that is not a prior. If `noise` is not one of these four.

    Notes
    -----
    A mask on the prior masks its latent and noise, too. With ``obs_mask``, only the density of the
    observed event is masked.

    **Fails when** the site is inside ``scan`` or ``cond``, whose bodies NumPyro hides from outer
    handlers: use `latent`, which decorates them.
    """

    def __init__(self, noise: Noise = "auto", *, explicit: bool = False) -> None:
        if noise not in get_args(Noise):
            raise ValueError(
                message(
                    "Unknown treatment of the decoder noise",
                    expected=", ".join(f'"{name}"' for name in get_args(Noise)),
                    got=repr(noise),
                    remedy='leave noise="auto" for the usual choice, or use noise="omit" for '
                    "x = g(z)",
                )
            )
        self.noise: Noise = noise
        self.explicit = explicit
        self._outer_events: tuple[str, ...] = ()

    def __call__(
        self, name: str, fn: Distribution, obs: ArrayLike | None
    ) -> tuple[Distribution | None, ArrayLike | None]:
        prior: Any = unwrap(fn)
        if not isinstance(prior, Prior):
            raise ValueError(
                message(
                    f"LatentReparam at site {name!r}",
                    expected="a generative prior",
                    got=type(prior).__name__,
                    remedy="leave this site out of the config of handlers.reparam",
                )
            )
        noise = self._noise(name, prior, obs)
        if obs is not None and noise != "centered":
            raise ValueError(_obs_without_density(name, prior))
        with without_obs_mask(fn) as unmasked:
            z = self._latent(name, rewrap(unmasked, prior.latent.expand(prior.batch_shape)))
            if noise == "omit":
                return None, prior.decode(z)
            if noise == "centered":
                return rewrap(unmasked if obs is None else fn, prior.event_given(z)), obs
            white = rewrap(unmasked, StandardNormal(prior.event_shape).expand(prior.batch_shape))
            loc, scale = prior.event_loc_scale(z)
            xi = numpyro.sample(f"{name}_noise", white, infer={NOISE_OF: name})
            return None, loc + scale * xi

    def made_from(self, name: str, prior: Prior, *, observed: bool) -> tuple[str, ...]:
        """Names of the sample sites that determine the event `name`."""
        latent, nested = f"{name}_latent", unwrap(prior.latent)
        parts = (latent,)
        if isinstance(nested, Prior) and needs_latent(nested, self.explicit):
            inner = LatentReparam(explicit=self.explicit)
            parts = inner.made_from(latent, nested, observed=False)
        noncentered = self.noise == "noncentered" or (self.noise == "auto" and not observed)
        return (
            (*parts, f"{name}_noise") if prior.density == "conditional" and noncentered else parts
        )

    def _noise(self, name: str, prior: Prior, obs: ArrayLike | None) -> Noise:
        if prior.density != "conditional":
            return "omit"
        if self.noise == "auto":
            return "noncentered" if obs is None else "centered"
        if self.noise == "noncentered" and obs is not None:
            raise ValueError(
                message(
                    f"Site {name!r} is observed, and its decoder noise is noncentered",
                    remedy='use noise="centered" (or "auto"), which accepts obs',
                )
            )
        return self.noise

    def _latent(self, event: str, latent: Distribution) -> ArrayLike:
        """Sample the latent of an event, or decode it if it has no density itself."""
        name, nested = f"{event}_latent", unwrap(latent)
        events = (event, *self._outer_events)
        if not isinstance(nested, Prior) or not needs_latent(nested, self.explicit):
            return numpyro.sample(name, latent, infer={LATENT_OF: events})
        inner = LatentReparam(explicit=self.explicit)
        inner._outer_events = events
        value: Any = inner(name, latent, None)[1]
        return numpyro.deterministic(name, value)


def needs_latent(prior: Prior, explicit: bool) -> bool:
    """Whether a prior enters a model by its latent."""
    return explicit or prior.density != "exact"


def _obs_without_density(name: str, prior: Prior) -> str:
    return message(
        f"Site {name!r} is observed, but a {type(prior).__name__} used this way has no density on "
        "events",
        remedy="observe the data through a likelihood, y ~ Normal(A(x), sigma) with obs=y, or give "
        "the prior decoder noise with thicken(scale)",
    )
