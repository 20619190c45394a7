"""Prior, predictive and log-likelihood draws of a model, batch by batch, kept on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.typing import ArrayLike
from jaxtyping import PyTree

from numpyro_genprior.errors import message
from numpyro_genprior.infer.host_batching import Batch, collect, draws_per_batch
from numpyro_genprior.networks.static import Static
from numpyro_genprior.sites.likelihood import pointwise_log_likelihood
from numpyro_genprior.sites.model_reader import Site, Trace
from numpyro_genprior.traces.arguments import Arguments, rebuild

Model: TypeAlias = Callable[..., Any]
"""A model whose arguments are already bound."""

Values: TypeAlias = dict[str, jax.Array]
"""Values by name of site."""


class ModelDraws:
    """Draws from one model with fixed arguments.

    Programs are compiled once for a model and the shapes of its arguments, see `Arguments`.

    Parameters
    ----------
    model
        As for inference.
    arguments
        As for inference, data included: these are ignored where data are simulated.
    sites
        The sites of the model.
    batch_size
        Draws on the device at a time. None: chosen by the size of one draw.
    """

    def __init__(
        self,
        model: Model,
        arguments: Arguments,
        sites: Mapping[str, Site],
        batch_size: int | None,
    ) -> None:
        self.model, self.sites, self._arguments = model, sites, arguments
        one_draw = sum(math.prod(site.shape) for site in sites.values())
        self._batch_size = draws_per_batch("to_arviz", batch_size, one_draw)

    def prior(self, key: jax.Array, number: int) -> dict[str, np.ndarray]:
        """Every recorded site, drawn from the prior, data included."""
        return self._stream(_prior, self.sites, (jax.random.split(key, number), {}), number)

    def predictive(
        self, key: jax.Array, samples: Mapping[str, ArrayLike], number: int
    ) -> dict[str, np.ndarray]:
        """The observed sites, drawn given each draw of the others."""
        given = self._latents(samples, "posterior_predictive")
        keys = jax.random.split(key, number)
        return self._stream(_prior, self._observed(), (keys, given), number)

    def log_likelihood(
        self, samples: Mapping[str, ArrayLike], number: int
    ) -> dict[str, np.ndarray]:
        """Log density of the observed sites given each draw of the others, by batch entry."""
        given = self._latents(samples, "log_likelihood")
        return self._stream(_log_likelihood, self._observed(), (None, given), number)

    def deterministic(self, samples: Mapping[str, ArrayLike], number: int) -> dict[str, np.ndarray]:
        """The deterministic sites, computed from each draw of the others."""
        given = self._latents(samples, "posterior")
        names = [name for name, site in self.sites.items() if site.kind == "deterministic"]
        return self._stream(_deterministic, names, (None, given), number) if names else {}

    def _observed(self) -> list[str]:
        return [name for name, site in self.sites.items() if site.observed]

    def _latents(self, samples: Mapping[str, ArrayLike], group: str) -> dict[str, np.ndarray]:
        """Draws of the sample sites without data, from which everything else follows."""
        latents = [n for n, s in self.sites.items() if s.kind == "sample" and not s.observed]
        missing = [name for name in latents if name not in samples]
        if missing:
            raise ValueError(
                message(
                    f"to_arviz: {group} needs draws of every unobserved site, and "
                    f"{', '.join(missing)} are not among those kept",
                    remedy="keep them in MCMC (no '~' in extra_fields), or leave this group out",
                )
            )
        return {name: np.asarray(samples[name]) for name in latents}

    def _stream(
        self, draw: Callable[..., Values], names: Iterable[str], inputs: PyTree, number: int
    ) -> dict[str, np.ndarray]:
        """Map over draws in batches."""
        program = Static((draw, self.model, tuple(names), self._arguments.structure))
        # A function that all calls share would keep the constants of this call alive.
        compiled = _compiled_map if self._arguments.traced else jax.jit(_map, static_argnums=0)

        def run(batch: Batch) -> Values:
            return compiled(program, self._arguments.values, jax.tree.map(batch.take, inputs))

        return collect(run, number, max(1, min(self._batch_size, number)))


def _map(program: Static, values: list[Any], batch: PyTree) -> Values:
    """Apply one of the functions below to each row of a batch."""
    draw, model, names, structure = program.value
    args, kwargs = rebuild(structure, values)

    def one(inputs: tuple[Any, Values]) -> Values:
        return draw(partial(model, *args, **kwargs), names, *inputs)

    return jax.vmap(one)(batch)


_compiled_map = partial(jax.jit, static_argnums=0)(_map)


def _prior(model: Model, names: Sequence[str], key: jax.Array, given: Values) -> Values:
    """Values of sites: those in `given` fixed, the others drawn, ``factor`` sites as they are."""
    fixed = numpyro.handlers.substitute(model, data=given)
    unobserved = numpyro.handlers.uncondition(numpyro.handlers.seed(fixed, key))
    trace = numpyro.handlers.trace(unobserved).get_trace()
    return {name: jnp.asarray(trace[name]["value"]) for name in names if name in trace}


def _log_likelihood(model: Model, names: Sequence[str], _: None, given: Values) -> Values:
    trace = _trace_given(model, given)
    return {name: pointwise_log_likelihood(trace[name]) for name in names}


def _deterministic(model: Model, names: Sequence[str], _: None, given: Values) -> Values:
    trace = _trace_given(model, given)
    return {name: jnp.asarray(trace[name]["value"]) for name in names}


def _trace_given(model: Model, given: Values) -> Trace:
    return numpyro.handlers.trace(numpyro.handlers.substitute(model, data=given)).get_trace()
