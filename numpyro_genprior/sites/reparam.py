"""`LatentReparam`: one site, by its latent."""

from __future__ import annotations

from typing import Any

import jax
import numpyro
from numpyro.distributions import Distribution
from numpyro.infer.reparam import Reparam

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior, StandardNormal
from numpyro_genprior.sites.wrappers import rewrap, unwrap

NOISES = (None, "noncentered", "centered", "none")
LATENT_OF = "latent_of"
"""Key of ``infer`` that marks the latents made here. Its value names the event; for a nested
latent also the events that this event is a latent of: ``("x_latent", "x")``."""
NOISE_OF = "noise_of"
"""Key of ``infer`` that marks the decoder noise made here. Its value names the event."""


class LatentReparam(Reparam):
    """Sample the latent of a prior, and make the event of it.

    For use with NumPyro's own ``handlers.reparam``; `latent` applies it to every prior of a model
    that needs it. A latent that is itself a prior without an exact density is treated the same
    way, as ``x_latent_latent``.

    Parameters
    ----------
    noise
        For a `VAEPrior`, how the decoder noise enters: ``"noncentered"`` (white noise in the
        sample site ``x_noise``), ``"centered"`` (``x`` is a sample site given ``x_latent``; takes
        ``obs``), ``"none"`` (x = g(z)). None: centered when observed, else noncentered.
    explicit
        Reparameterise a nested latent even when its density is exact.

    Raises
    ------
    ValueError
        When the site cannot be: ``obs`` on an event without a density, noncentered noise with
        ``obs``, a distribution that is not a prior.
    """

    def __init__(self, noise: str | None = None, *, explicit: bool = False) -> None:
        if noise not in NOISES:
            raise ValueError(
                message(
                    "Unknown treatment of the decoder noise",
                    expected='"noncentered", "centered", "none" or None',
                    got=repr(noise),
                    remedy="leave noise=None for the usual choice",
                )
            )
        self.noise, self.explicit = noise, explicit
        self._outer_events: tuple[str, ...] = ()

    def __call__(self, name: str, fn: Distribution, obs: Any) -> tuple[Any, Any]:
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
        z = self._latent(name, rewrap(fn, prior.latent.expand(prior.batch_shape)))
        if noise == "none":
            return None, prior.decode(z)
        if noise == "centered":
            return rewrap(fn, prior.event_given(z)), obs
        white = rewrap(fn, StandardNormal(prior.event_shape).expand(prior.batch_shape))
        loc, scale = prior.event_loc_scale(z)
        return None, loc + scale * numpyro.sample(f"{name}_noise", white, infer={NOISE_OF: name})

    def _noise(self, name: str, prior: Prior, obs: Any) -> str:
        if prior.density != "conditional":
            return "none"
        if self.noise is None:
            return "noncentered" if obs is None else "centered"
        if self.noise == "noncentered" and obs is not None:
            raise ValueError(
                message(
                    f"Site {name!r} is observed, and its decoder noise is noncentered",
                    remedy='use noise="centered" (or None), which takes obs',
                )
            )
        return self.noise

    def _latent(self, event: str, latent: Distribution) -> jax.Array:
        """Sample the latent of an event, by its own latent where it has no density itself."""
        name, nested = f"{event}_latent", unwrap(latent)
        events = (event, *self._outer_events)
        if not isinstance(nested, Prior) or not needs_latent(nested, self.explicit):
            return numpyro.sample(name, latent, infer={LATENT_OF: events})
        inner = LatentReparam(explicit=self.explicit)
        inner._outer_events = events
        _, value = inner(name, latent, None)
        return numpyro.deterministic(name, value)


def needs_latent(prior: Prior, explicit: bool) -> bool:
    return explicit or prior.density != "exact"


def _obs_without_density(name: str, prior: Prior) -> str:
    return message(
        f"Site {name!r} is observed, but a {type(prior).__name__} used this way has no density on "
        "events",
        remedy="observe the data through a likelihood, y ~ Normal(A(x), sigma) with obs=y, or give "
        "the prior decoder noise with thicken(scale)",
    )
