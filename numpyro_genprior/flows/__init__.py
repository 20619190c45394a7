"""Bijections: one interface to FlowJAX, Distrax and NumPyro transforms."""

from typing import Any

from numpyro_genprior.flows.adapter import Adapter
from numpyro_genprior.flows.distrax import Distrax
from numpyro_genprior.flows.flowjax import FlowJAX
from numpyro_genprior.flows.numpyro import NumPyro

ADAPTERS: dict[str, type[Adapter]] = {a.name: a for a in (FlowJAX, Distrax, NumPyro)}


def adapter_of(flow: Any) -> type[Adapter] | None:
    """The adapter of the library that `flow` comes from, None for a stranger."""
    return next((a for a in ADAPTERS.values() if a.matches(flow)), None)


__all__ = ["ADAPTERS", "Adapter", "adapter_of"]
