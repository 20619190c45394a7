"""Many data sets, and the draws that a method makes of each: vmapped, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from tqdm.auto import tqdm

from numpyro_genprior.diagnostics.calibration.inference import Method
from numpyro_genprior.diagnostics.calibration.ranked_quantities import Quantities
from numpyro_genprior.diagnostics.calibration.simulation import (
    Conditioned,
    Sites,
    evaluate,
    read_sites,
    simulate,
)
from numpyro_genprior.errors import message
from numpyro_genprior.infer.host_batching import batches
from numpyro_genprior.infer.methods import MCMCMethod

MEMORY = 2**28  # bytes that a batch may take
MOST = 64  # data sets in a batch
FEWEST = 16  # replications


class Batch(NamedTuple):
    """What a method found for some data sets.

    Attributes
    ----------
    rows
        Which data sets.
    values
        Quantities of the draws, of shape ``(data sets, chains, draws, quantities)``.
    num_divergences
        Of each data set.
    """

    rows: np.ndarray
    values: np.ndarray
    num_divergences: np.ndarray


@dataclass(frozen=True)
class Experiment:
    """A model with its arguments, the sites of it, and how inference is done.

    Attributes
    ----------
    name
        Of the diagnostic, for messages.
    model
        The model for inference.
    sites, method
        Its sites, and how draws are made.
    args, kwargs
        Its arguments.
    """

    name: str
    model: Callable[..., Any]
    sites: Sites
    method: Method
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def simulate(
        self,
        key: jax.Array,
        number: int,
        *,
        model: Callable[..., Any] | None = None,
        given: dict[str, Any] | None = None,
    ) -> dict[str, jax.Array]:
        """All sites of `number` data sets, by this model or another.

        `given`, values of sites, has a leading dimension of data sets.

        Raises
        ------
        ValueError
            When data are not finite, or a site is missing.
        """
        keys = jax.random.split(key, number)
        drawn = _simulate(model or self.model, self.sites, keys, given, self.args, self.kwargs)
        missing = [name for name in self.sites.data if name not in drawn]
        if missing:
            raise ValueError(
                message(
                    f"{self.name}: the model that simulates has no site {missing[0]!r}",
                    expected=f"sites {list(self.sites.data)}",
                    got=sorted(drawn),
                    remedy="call the sites of both models alike",
                )
            )
        for name in self.sites.data:
            if not np.isfinite(np.asarray(drawn[name], float)).all():
                raise ValueError(
                    message(
                        f"{self.name}: simulated data {name!r} are not finite",
                        remedy="look at the model's prior: numpyro.infer.Predictive(model, ...)",
                    )
                )
        return drawn

    def at(self, quantities: Quantities, drawn: dict[str, Any]) -> np.ndarray:
        """Quantities of simulated sites as the model for inference has them."""
        missing = [name for name in self.sites.latents if name not in drawn]
        if missing:
            raise ValueError(
                message(
                    f"{self.name}: there is no true value of site {missing[0]!r}",
                    expected=f"sites {list(self.sites.latents)}",
                    got=sorted(drawn),
                    remedy="call the latents of both models alike",
                )
            )
        data, latents = self._parts(drawn)
        values = _at(self.model, self.sites, quantities, data, latents, self.args, self.kwargs)
        return np.asarray(values)

    def shapes(self) -> Any:
        """Shapes of all sites, with the log likelihood."""

        def run(key: jax.Array) -> dict[str, jax.Array]:
            drawn = simulate(self.model, self.sites, key, self.args, self.kwargs)
            data, latents = self._parts(drawn)
            return evaluate(self.model, self.sites, data, latents, self.args, self.kwargs)

        return jax.eval_shape(run, jax.random.key(0))

    def _parts(self, drawn: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {name: drawn[name] for name in self.sites.data}
        return data, {name: drawn[name] for name in self.sites.latents if name in drawn}

    def run(
        self,
        key: jax.Array,
        drawn: dict[str, Any],
        quantities: Quantities,
        *,
        extra: np.ndarray | None = None,
        batch_size: int | None = None,
        progress_bar: bool = True,
        desc: str | None = None,
    ) -> Iterator[Batch]:
        """Quantities of the draws for each simulated data set, batch by batch.

        With `extra`, of shape ``(data sets, ...)``, functionals see their row of it as site
        ``"extra"``.
        """
        data, _ = self._parts(drawn)
        number = len(next(iter(data.values())))
        size = self._batch_size(quantities, number) if batch_size is None else batch_size
        if size < 1:
            raise ValueError(
                message(f"{self.name}: batch_size of {size}", remedy="leave batch_size=None")
            )
        size = math.ceil(number / math.ceil(number / min(size, number)))  # batches alike
        keys = jax.random.split(key, number)
        with tqdm(total=number, desc=desc or self.name, disable=not progress_bar) as bar:
            for batch in batches(number, size):
                part = {name: batch.take(value) for name, value in data.items()}
                more = None if extra is None else batch.take(extra)
                found = _run(
                    (self.method, self.model, self.sites, quantities),
                    batch.take(keys), part, more, self.args, self.kwargs,
                )  # fmt: skip
                values, divergences = (np.asarray(array)[: batch.count] for array in found)
                yield Batch(batch.rows, values, divergences)
                bar.update(batch.count)

    def _batch_size(self, quantities: Quantities, number: int) -> int:
        latents = sum(math.prod(self.sites.shapes[name]) for name in self.sites.latents)
        draws = length = self.method.num_draws
        if isinstance(self.method, MCMCMethod):  # warm-up and what is thinned away take room, too
            length = self.method.num_warmup + self.method.num_samples
            length *= self.method.num_chains
        events = sum(map(math.prod, self.sites.shapes.values()))
        floats = 3 * length * latents + 4 * draws * len(quantities.names) + 64 * events
        return int(np.clip(MEMORY // (4 * floats), 1, min(MOST, number)))


@eqx.filter_jit
def _simulate(
    model: Any, sites: Sites, keys: jax.Array, given: Any, args: Any, kwargs: Any
) -> dict[str, jax.Array]:
    def one(key_given: Any) -> dict[str, jax.Array]:
        key, held = key_given
        return simulate(model, sites, key, args, kwargs, held)

    return jax.lax.map(one, (keys, given), batch_size=16)


@eqx.filter_jit
def _at(
    model: Any,
    sites: Sites,
    quantities: Quantities,
    data: Any,
    latents: Any,
    args: Any,
    kwargs: Any,
) -> jax.Array:
    def one(both: Any) -> jax.Array:
        data, latents = both
        return quantities(evaluate(model, sites, data, latents, args, kwargs))

    return jax.lax.map(one, (data, latents), batch_size=16)


@eqx.filter_jit
def _run(static: Any, keys: Any, data: Any, extra: Any, args: Any, kwargs: Any) -> Any:
    method, model, sites, quantities = static
    conditioned = Conditioned(model)

    def one(key: jax.Array, data: Any, extra: Any) -> Any:
        draws = method.run(conditioned, key, data, args, kwargs)
        latents = {name: draws.samples[name] for name in sites.latents}
        shape = next(iter(latents.values())).shape[:2]  # chains, draws

        def at(latents: Any) -> jax.Array:
            values = evaluate(model, sites, data, latents, args, kwargs)
            return quantities(values if extra is None else {**values, "extra": extra})

        joined = {name: value.reshape(-1, *value.shape[2:]) for name, value in latents.items()}
        values = jax.lax.map(at, joined, batch_size=16)
        return values.reshape(*shape, -1), draws.num_divergences

    return jax.vmap(one)(keys, data, extra)


def prepare(
    name: str,
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    observed: str | tuple[str, ...] | None,
    num_replications: int,
    method: Method,
) -> Experiment:
    """The experiment of a diagnostic.

    Raises
    ------
    ValueError
        As `read_sites` does, and when there are too few replications.
    """
    if num_replications < FEWEST:
        raise ValueError(
            message(
                f"{name}: too few replications to say anything",
                expected=f"at least {FEWEST}",
                got=num_replications,
                remedy="take 100 or more",
            )
        )
    sites = read_sites(model, args, kwargs, observed, name)
    return Experiment(name, model, sites, method, args, kwargs)
