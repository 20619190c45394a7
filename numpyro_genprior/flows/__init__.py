"""Bijections: one interface to FlowJAX, Distrax and NumPyro transforms."""

from typing import Any

from numpyro_genprior.flows.adapter import FlowAdapter
from numpyro_genprior.flows.distrax import DistraxAdapter
from numpyro_genprior.flows.flowjax import FlowJAXAdapter
from numpyro_genprior.flows.numpyro import NumPyroAdapter

_ADAPTERS = (FlowJAXAdapter(), DistraxAdapter(), NumPyroAdapter())
ADAPTERS: dict[str, FlowAdapter[Any]] = {adapter.name: adapter for adapter in _ADAPTERS}
"""The adapters by the name of their library."""


def adapter_of(flow: object) -> FlowAdapter[Any] | None:
    """The adapter of the library that `flow` comes from, or None if there is none."""
    return next((adapter for adapter in ADAPTERS.values() if adapter.matches(flow)), None)


__all__ = ["ADAPTERS", "FlowAdapter", "adapter_of"]
