"""Traces: from MCMC runs to ArviZ, from latents to events and their moments."""

from numpyro_genprior.traces.arviz import to_arviz
from numpyro_genprior.traces.decoding import decode
from numpyro_genprior.traces.moments import EventMoments, event_moments

__all__ = ["EventMoments", "decode", "event_moments", "to_arviz"]
