"""Many simulated data sets and the posterior draws for each: vmapped, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tqdm.auto import tqdm

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
from numpyro_genprior.infer.methods import MCMCMethod, Method

MAX_BATCH_BYTES = 2**28
MAX_BATCH_SIZE = 64  # data sets
MIN_REPLICATIONS = 16
INNER_BATCH_SIZE = 16  # draws or data sets that the model is evaluated at together

Values = dict[str, jax.Array]  # of sites, by name


class Batch(NamedTuple):
    """Posterior draws for some of the data sets.

    Attributes
    ----------
    rows
        Indices of the data sets.
    values
        The quantities at the draws, of shape ``(datasets, chains, draws, quantities)``.
    num_divergences
        Divergent transitions of each data set.
    """

    rows: Int[np.ndarray, " datasets"]
    values: Float[np.ndarray, "datasets chains draws quantities"]
    num_divergences: Int[np.ndarray, " datasets"]


@dataclass(frozen=True)
class Experiment:
    """A model with its arguments, its sites and the method of inference.

    Attributes
    ----------
    name
        Name of the diagnostic, for messages.
    model
        The model for inference.
    sites
        Its sites.
    method
        The method of inference.
    args, kwargs
        The model's arguments.
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
        given: Values | None = None,
    ) -> Values:
        """All sites of `number` data sets, simulated by this model or by another.

        `given`, values of sites, has a leading dimension of data sets.

        Raises
        ------
        ValueError
            If simulated data are not finite or a data site is missing.
        """
        keys = jax.random.split(key, number)
        simulated = _simulate(model or self.model, self.sites, keys, given, self.args, self.kwargs)
        missing = [name for name in self.sites.data if name not in simulated]
        if missing:
            raise ValueError(
                message(
                    f"{self.name}: the model that simulates has no site {missing[0]!r}",
                    expected=f"sites {list(self.sites.data)}",
                    got=sorted(simulated),
                    remedy="give the sites of both models the same names",
                )
            )
        for name in self.sites.data:
            if not np.isfinite(np.asarray(simulated[name], float)).all():
                raise ValueError(
                    message(
                        f"{self.name}: simulated data {name!r} are not finite",
                        remedy="inspect prior draws: numpyro.infer.Predictive(model, ...)",
                    )
                )
        return simulated

    def evaluate(
        self, quantities: Quantities, simulated: Values
    ) -> Float[np.ndarray, "datasets quantities"]:
        """The quantities of simulated sites, under the model for inference.

        Raises
        ------
        ValueError
            If a latent site has no simulated value.
        """
        missing = [name for name in self.sites.latents if name not in simulated]
        if missing:
            raise ValueError(
                message(
                    f"{self.name}: there is no true value of site {missing[0]!r}",
                    expected=f"sites {list(self.sites.latents)}",
                    got=sorted(simulated),
                    remedy="give the latents of both models the same names",
                )
            )
        data, latents = self._parts(simulated)
        return np.asarray(
            _evaluate(self.model, self.sites, quantities, data, latents, self.args, self.kwargs)
        )

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of all sites, and of the log likelihood."""

        def run(key: jax.Array) -> Values:
            simulated = simulate(self.model, self.sites, key, self.args, self.kwargs)
            data, latents = self._parts(simulated)
            return evaluate(self.model, self.sites, data, latents, self.args, self.kwargs)

        return jax.eval_shape(run, jax.random.key(0))

    def run(
        self,
        key: jax.Array,
        simulated: Values,
        quantities: Quantities,
        *,
        references: np.ndarray | None = None,
        batch_size: int | None = None,
        progress_bar: bool = True,
        description: str | None = None,
    ) -> Iterator[Batch]:
        """The quantities at posterior draws for each simulated data set, batch by batch.

        `references`, of shape ``(data sets, ...)``, are passed on: functionals find the row of
        their data set as site ``"references"``.

        Raises
        ------
        ValueError
            If `batch_size` is not positive.
        """
        data, _ = self._parts(simulated)
        number = len(next(iter(data.values())))
        size = self._batch_size(quantities, number) if batch_size is None else batch_size
        if size < 1:
            raise ValueError(
                message(f"{self.name}: batch_size of {size}", remedy="leave batch_size=None")
            )
        size = math.ceil(number / math.ceil(number / min(size, number)))  # batches of equal size
        keys = jax.random.split(key, number)
        with tqdm(total=number, desc=description or self.name, disable=not progress_bar) as bar:
            for batch in batches(number, size):
                values, divergences = _run(
                    (self.method, self.model, self.sites, quantities),
                    batch.take(keys),
                    {name: batch.take(value) for name, value in data.items()},
                    None if references is None else batch.take(references),
                    self.args,
                    self.kwargs,
                )
                arrays = (np.asarray(array)[: batch.count] for array in (values, divergences))
                yield Batch(batch.rows, *arrays)
                bar.update(batch.count)

    def _parts(self, simulated: Values) -> tuple[Values, Values]:
        data = {name: simulated[name] for name in self.sites.data}
        return data, {name: simulated[name] for name in self.sites.latents if name in simulated}

    def _batch_size(self, quantities: Quantities, number: int) -> int:
        latents = sum(math.prod(self.sites.shapes[name]) for name in self.sites.latents)
        draws = length = self.method.num_draws
        if isinstance(self.method, MCMCMethod):  # all iterations are kept until the end
            length = self.method.num_warmup + self.method.num_samples
            length *= self.method.num_chains
        events = sum(map(math.prod, self.sites.shapes.values()))
        floats = 3 * length * latents + 4 * draws * len(quantities.names) + 64 * events
        return int(np.clip(MAX_BATCH_BYTES // (4 * floats), 1, min(MAX_BATCH_SIZE, number)))


@eqx.filter_jit
def _simulate(
    model: Callable[..., Any],
    sites: Sites,
    keys: jax.Array,
    given: Values | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Values:
    def one(key_and_given: tuple[jax.Array, Values | None]) -> Values:
        key, given = key_and_given
        return simulate(model, sites, key, args, kwargs, given)

    return jax.lax.map(one, (keys, given), batch_size=INNER_BATCH_SIZE)


@eqx.filter_jit
def _evaluate(
    model: Callable[..., Any],
    sites: Sites,
    quantities: Quantities,
    data: Values,
    latents: Values,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Float[Array, "datasets quantities"]:
    def one(data_and_latents: tuple[Values, Values]) -> jax.Array:
        data, latents = data_and_latents
        return quantities(evaluate(model, sites, data, latents, args, kwargs))

    return jax.lax.map(one, (data, latents), batch_size=INNER_BATCH_SIZE)


@eqx.filter_jit
def _run(
    static: tuple[Method, Callable[..., Any], Sites, Quantities],
    keys: jax.Array,
    data: Values,
    references: jax.Array | np.ndarray | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Float[Array, "datasets chains draws quantities"], Int[Array, " datasets"]]:
    method, model, sites, quantities = static
    conditioned = Conditioned(model)

    def one(
        key: jax.Array, data: Values, references: jax.Array | np.ndarray | None
    ) -> tuple[Float[Array, "chains draws quantities"], Int[Array, ""]]:
        draws = method.run(conditioned, key, data, args, kwargs)
        latents = {name: draws.samples[name] for name in sites.latents}
        chains_and_draws = next(iter(latents.values())).shape[:2]

        def quantities_at(latents: Values) -> jax.Array:
            values = evaluate(model, sites, data, latents, args, kwargs)
            if references is not None:
                values["references"] = jnp.asarray(references)
            return quantities(values)

        flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in latents.items()}
        values = jax.lax.map(quantities_at, flat, batch_size=INNER_BATCH_SIZE)
        return values.reshape(*chains_and_draws, -1), draws.num_divergences

    return jax.vmap(one)(keys, data, references)


def prepare(
    name: str,
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    observed: str | tuple[str, ...] | None,
    num_replications: int,
    method: Method,
) -> Experiment:
    """Prepare the simulations and inference runs of a diagnostic.

    Raises
    ------
    ValueError
        If there are fewer than 16 replications, and as `read_sites` does.
    """
    if num_replications < MIN_REPLICATIONS:
        raise ValueError(
            message(
                f"{name}: too few replications",
                expected=f"at least {MIN_REPLICATIONS}",
                got=num_replications,
                remedy="use 100 or more",
            )
        )
    sites = read_sites(model, args, dict(kwargs), observed, name)
    return Experiment(name, model, sites, method, args, dict(kwargs))
