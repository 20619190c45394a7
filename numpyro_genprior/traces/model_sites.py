"""The sites of a run's model, and its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from numpyro_genprior.sites.model_reader import Site, placeholder_trace, read_trace
from numpyro_genprior.traces.arguments import Arguments, rebuild


def read_run(
    model: Callable[..., Any], arguments: Arguments
) -> tuple[dict[str, Site], dict[str, jax.Array]]:
    """The sites of a model that hold values, in model order, and the values of the observed ones.

    The model is traced and not run: only the data are evaluated.
    """
    sites: dict[str, Site] = {}

    def observed(values: list[Any]) -> dict[str, jax.Array]:
        args, kwargs = rebuild(arguments.structure, values)
        trace = placeholder_trace(model, args, kwargs)
        sites.update((name, site) for name, site in read_trace(trace).items() if site.has_value)
        return {name: trace[name]["value"] for name, site in sites.items() if site.observed}

    data = jax.jit(observed)(arguments.values)
    return sites, data
