"""Prior, predictive and log-likelihood draws of a model, batch by batch, kept on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior
from numpyro_genprior.traces.decoding import BATCH_ELEMENTS
from numpyro_genprior.traces.model_sites import Site


class ModelDraws:
    """Draws from one model with fixed arguments.

    The priors among the arguments are arguments of the compiled programs, too, and not constants.

    Parameters
    ----------
    model, args, kwargs
        As for inference, data included: they are set aside where data are simulated.
    sites
        The sites of the model.
    batch_size
        Draws on the device at a time; None chooses by what one draw holds.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sites: Mapping[str, Site],
        batch_size: int | None,
    ) -> None:
        self.model, self.sites = model, sites
        leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=lambda a: isinstance(a, Prior))
        self._priors = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Prior)}
        others = dict(enumerate(leaves))

        def arguments(priors: dict[int, Prior]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            merged = {**others, **priors}
            return jax.tree.unflatten(treedef, [merged[i] for i in range(len(leaves))])

        self._arguments = arguments
        one_draw = max(sum(site.size for site in sites.values()), 1)
        if batch_size is not None and batch_size < 1:
            raise ValueError(
                message(
                    "to_arviz: batch_size is not a number of draws",
                    expected="a positive integer, or None",
                    got=batch_size,
                    remedy="leave it out to choose by the size of a draw",
                )
            )
        self._batch_size = batch_size or max(1, BATCH_ELEMENTS // one_draw)

    def prior(self, key: jax.Array, number: int) -> dict[str, np.ndarray]:
        """Every site that is recorded, drawn from the prior, data included."""

        def one(priors: dict[int, Prior], key: jax.Array) -> dict[str, Any]:
            return self._values(_unobserved(self.model, key), priors, self.sites)

        return self._stream(one, jax.random.split(key, number), number)

    def predictive(
        self, key: jax.Array, samples: Mapping[str, Any], number: int
    ) -> dict[str, np.ndarray]:
        """The observed sites, drawn anew given each draw of the others."""
        names = [name for name, site in self.sites.items() if site.observed]
        given = self._unknowns(samples, "posterior_predictive")

        def one(priors: dict[int, Prior], inputs: tuple[Any, Any]) -> dict[str, Any]:
            key, values = inputs
            model = numpyro.handlers.substitute(self.model, data=values)
            return self._values(_unobserved(model, key), priors, names)

        return self._stream(one, (jax.random.split(key, number), given), number)

    def log_likelihood(self, samples: Mapping[str, Any], number: int) -> dict[str, np.ndarray]:
        """Log density of the observed sites given each draw of the others, by batch entry."""
        names = [name for name, site in self.sites.items() if site.observed]
        given = self._unknowns(samples, "log_likelihood")

        def one(priors: dict[int, Prior], values: Any) -> dict[str, Any]:
            trace = self._trace(numpyro.handlers.substitute(self.model, data=values), priors)
            return {name: trace[name]["fn"].log_prob(trace[name]["value"]) for name in names}

        return self._stream(one, given, number)

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

    def _trace(self, model: Callable[..., Any], priors: dict[int, Prior]) -> Any:
        args, kwargs = self._arguments(priors)
        return numpyro.handlers.trace(model).get_trace(*args, **kwargs)

    def _values(self, model: Callable[..., Any], priors: Any, names: Any) -> dict[str, Any]:
        trace = self._trace(model, priors)
        return {name: jnp.asarray(trace[name]["value"]) for name in names if name in trace}

    def _stream(
        self, one: Callable[[Any, Any], dict[str, Any]], inputs: Any, number: int
    ) -> dict[str, np.ndarray]:
        """Map over draws in batches of one size; the last one reaches back."""
        size = min(self._batch_size, number)
        many = jax.jit(jax.vmap(one, in_axes=(None, 0)))
        kept: dict[str, np.ndarray] = {}
        for first in range(0, number, size):
            start = min(first, number - size)
            batch = jax.tree.map(lambda a, i=start: a[i : i + size], inputs)
            for name, values in jax.device_get(many(self._priors, batch)).items():
                if name not in kept:
                    kept[name] = np.empty((number, *values.shape[1:]), values.dtype)
                kept[name][start : start + size] = values
        return kept


def _unobserved(model: Callable[..., Any], key: jax.Array) -> Callable[..., Any]:
    """The model with its data drawn; ``factor`` sites stay as they are."""
    return numpyro.handlers.uncondition(numpyro.handlers.seed(model, key))
