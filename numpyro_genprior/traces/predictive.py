"""Prior, predictive and log-likelihood draws of a model, batch by batch, kept on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import PyTree

from numpyro_genprior.errors import message
from numpyro_genprior.infer.host_batching import Batch, collect, draws_per_batch
from numpyro_genprior.networks.static import Static
from numpyro_genprior.sites.likelihood import pointwise_log_likelihood
from numpyro_genprior.sites.model_reader import Site, Trace
from numpyro_genprior.traces.arguments import Arguments, rebuild

Values: TypeAlias = dict[str, jax.Array]
"""Values of sites by name, for one draw or for a batch of draws."""

Draw: TypeAlias = Callable[..., Values]
"""One of the functions at the end of this file, which compute sites of a single draw."""


class ModelDraws:
    """Draws from one model with fixed arguments.

    Programs are compiled once for a model and the shapes of its arguments, see `Arguments`.

    Parameters
    ----------
    model
        As for inference.
    arguments
        As for inference, data included: they are ignored if data are simulated.
    sites
        The sites of the model.
    batch_size
        Draws on the device at a time; None chooses by what one draw holds.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        arguments: Arguments,
        sites: Mapping[str, Site],
        batch_size: int | None,
    ) -> None:
        self.model, self.sites, self._arguments = model, sites, arguments
        one_draw = sum(math.prod(site.shape) for site in sites.values())
        self._batch_size = draws_per_batch("to_arviz", batch_size, one_draw)

    def prior(self, key: jax.Array, number: int) -> dict[str, np.ndarray]:
        """Every site that is recorded, drawn from the prior, data included."""
        return self._stream(_prior, self.sites, (jax.random.split(key, number), {}), number)

    def predictive(
        self, key: jax.Array, samples: Mapping[str, Any], number: int
    ) -> dict[str, np.ndarray]:
        """The observed sites, simulated given each draw of the others."""
        given = self._unknowns(samples, "posterior_predictive")
        return self._stream(
            _prior, self._observed(), (jax.random.split(key, number), given), number
        )

    def log_likelihood(self, samples: Mapping[str, Any], number: int) -> dict[str, np.ndarray]:
        """Log density of the observed sites given each draw of the others, by batch entry."""
        given = self._unknowns(samples, "log_likelihood")
        return self._stream(_log_likelihood, self._observed(), (None, given), number)

    def deterministic(self, samples: Mapping[str, Any], number: int) -> dict[str, np.ndarray]:
        """The deterministic sites, computed from each draw of the others."""
        given = self._unknowns(samples, "posterior")
        names = [name for name, site in self.sites.items() if site.kind == "deterministic"]
        return self._stream(_values, names, (None, given), number) if names else {}

    def _observed(self) -> list[str]:
        return [name for name, site in self.sites.items() if site.observed]

    def _unknowns(self, samples: Mapping[str, Any], what: str) -> dict[str, np.ndarray]:
        """Draws of the sample sites; everything else follows from them."""
        unknown = [n for n, site in self.sites.items() if site.kind == "sample"]
        unknown = [name for name in unknown if not self.sites[name].observed]
        missing = [name for name in unknown if name not in samples]
        if missing:
            raise ValueError(
                message(
                    f"to_arviz: {what} needs draws of every unobserved site, and "
                    f"{', '.join(missing)} are not among those kept",
                    remedy="keep them in MCMC (no '~' in extra_fields), or leave this group out",
                )
            )
        return {name: np.asarray(samples[name]) for name in unknown}

    def _stream(
        self, draw: Draw, names: Iterable[str], inputs: PyTree, number: int
    ) -> dict[str, np.ndarray]:
        """Map `draw` over draws in batches."""
        program = Static((draw, self.model, tuple(names), self._arguments.structure))
        # Not the shared one for models with constants, which it would keep alive.
        many = _many if self._arguments.traced else jax.jit(_map, static_argnums=0)

        def run(batch: Batch) -> Values:
            return many(program, self._arguments.values, jax.tree.map(batch.take, inputs))

        return collect(run, number, max(1, min(self._batch_size, number)))


def _map(program: Static, values: list[Any], batch: PyTree) -> Values:
    """Apply one of the functions below to each row of a batch."""
    draw, model, names, structure = program.value
    args, kwargs = rebuild(structure, values)

    def one(inputs: PyTree) -> Values:
        return draw(model, names, args, kwargs, *inputs)

    return jax.vmap(one)(batch)


_many = partial(jax.jit, static_argnums=0)(_map)


def _prior(
    model: Callable[..., Any],
    names: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    key: jax.Array,
    given: Values,
) -> Values:
    """Draw all sites except those in `given`, data included; ``factor`` has no effect."""
    fixed = numpyro.handlers.substitute(model, data=given)
    unobserved = numpyro.handlers.uncondition(numpyro.handlers.seed(fixed, key))
    trace = numpyro.handlers.trace(unobserved).get_trace(*args, **kwargs)
    return {name: jnp.asarray(trace[name]["value"]) for name in names if name in trace}


def _log_likelihood(
    model: Callable[..., Any],
    names: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    _: None,
    given: Values,
) -> Values:
    """Log densities of the observed sites."""
    trace = _trace(model, args, kwargs, given)
    return {name: pointwise_log_likelihood(trace[name]) for name in names}


def _values(
    model: Callable[..., Any],
    names: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    _: None,
    given: Values,
) -> Values:
    """Values of sites that follow from those in `given`, data kept."""
    trace = _trace(model, args, kwargs, given)
    return {name: jnp.asarray(trace[name]["value"]) for name in names}


def _trace(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], given: Values
) -> Trace:
    fixed = numpyro.handlers.substitute(model, data=given)
    return numpyro.handlers.trace(fixed).get_trace(*args, **kwargs)
