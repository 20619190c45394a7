"""Convert posterior draws to ArviZ objects, and latents to events and their moments."""

from numpyro_genprior.traces.arviz import to_arviz
from numpyro_genprior.traces.decoding import decode
from numpyro_genprior.traces.moments import EventMoments, event_moments
from numpyro_genprior.traces.sources import PosteriorDraws, Request, posterior_draws

__all__ = [
    "EventMoments",
    "PosteriorDraws",
    "Request",
    "decode",
    "event_moments",
    "posterior_draws",
    "to_arviz",
]
