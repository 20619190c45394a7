"""Data that a model simulates: its observed sites drawn, and a model that observes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.primitives import Messenger

from numpyro_genprior.diagnostics.events import events_of
from numpyro_genprior.errors import message
from numpyro_genprior.sites.wrappers import unwrap

LOG_LIKELIHOOD = "log_likelihood"


class Unobserve(Messenger):
    """NumPyro's ``uncondition`` for the sites of some names, ``scan`` bodies included."""

    def __init__(self, fn: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.names = names
        super().__init__(fn)

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow" and callable(msg["args"][0]):
            body, *rest = msg["args"]
            msg["args"] = (Unobserve(body, self.names), *rest)
        if msg["type"] == "sample" and msg["is_observed"] and msg["name"] in self.names:
            numpyro.handlers.uncondition.process_message(self, msg)  # pyright: ignore


class Observe(Messenger):
    """NumPyro's ``condition``, which may give other data to an observed event of a prior, too."""

    def __init__(self, fn: Callable[..., Any], data: Mapping[str, Any]) -> None:
        self.data = data
        super().__init__(fn)

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("condition", self.data))
        if msg["type"] != "sample" or msg.get("_control_flow_done", False):
            return
        if msg["name"] in self.data:
            msg["value"], msg["is_observed"] = self.data[msg["name"]], True


class Conditioned:
    """A model as a function of its data: ``model(data, args, kwargs)``."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def __call__(self, data: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return Observe(self.model, data)(*args, **kwargs)


@dataclass(frozen=True)
class Sites:
    """Names of a model's sites.

    Attributes
    ----------
    data
        Those that are simulated.
    latents
        Sample sites without data.
    events
        Events of priors, recorded and not observed, outermost only.
    shapes
        Shapes of all values.
    """

    data: tuple[str, ...]
    latents: tuple[str, ...]
    events: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]] = field(hash=False)


def read_sites(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    observed: str | tuple[str, ...] | None,
    method: str,
) -> Sites:
    """What sites there are, by one abstract run.

    Raises
    ------
    ValueError
        When nothing is observed, `observed` names no sample site, or a latent is discrete.

    Warns
    -----
    UserWarning
        When a term of the density is not simulated: ``factor``, or data that `observed` leaves.
    """
    found: dict[str, Any] = {}

    def run() -> None:
        seeded = numpyro.handlers.seed(model, 0)
        found.update(numpyro.handlers.trace(seeded).get_trace(*args, **kwargs))

    with numpyro.handlers.block():
        jax.eval_shape(run)
    sample = {name: site for name, site in found.items() if site["type"] == "sample"}
    factors = [name for name, site in sample.items() if isinstance(unwrap(site["fn"]), dist.Unit)]
    with_data = [name for name, site in sample.items() if site["is_observed"]]
    names = (observed,) if isinstance(observed, str) else observed
    data = tuple(n for n in with_data if n not in factors) if names is None else tuple(names)
    missing = [name for name in data if name not in sample or name in factors]
    if missing or not data:
        raise ValueError(
            message(
                f"{method} simulates the data, and the model has none"
                if not data
                else f"{method} cannot observe {missing[0]!r}",
                expected="sample sites with data"
                if not data
                else f"names among {[name for name in sample if name not in factors]}",
                remedy='pass data of the right shape, or name the sites: observed=("y",)',
            )
        )
    left = [name for name in with_data if name not in data]
    if left:
        warnings.warn(
            f"{method} simulates {', '.join(data)} and leaves {', '.join(left)} as they are: if "
            "they depend on the latents, data and latents do not come from one joint law.",
            stacklevel=3,
        )
    latents = tuple(n for n in sample if n not in data and n not in with_data)
    discrete = [name for name in latents if sample[name]["fn"].support.is_discrete]
    if discrete:
        raise ValueError(
            message(
                f"{method}: latent site {discrete[0]!r} is discrete",
                remedy="marginalise it, or leave it out",
            )
        )
    shapes = {
        name: jnp.shape(site["value"])
        for name, site in found.items()
        if site["type"] in ("sample", "deterministic") and name not in factors
    }
    return Sites(data, latents, events_of(found, data), shapes)


def simulate(
    model: Callable[..., Any],
    sites: Sites,
    key: jax.Array,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: Mapping[str, Any] | None = None,
) -> dict[str, jax.Array]:
    """One draw of all sites, data included.

    `given` has values of sites, events of priors among them, from which the data are drawn in
    the place of the drawn ones.
    """
    with numpyro.handlers.block():
        drawn = numpyro.handlers.seed(Unobserve(model, sites.data), key)
        if not given:
            return _values(numpyro.handlers.trace(drawn).get_trace(*args, **kwargs))
        first = numpyro.handlers.trace(drawn).get_trace(*args, **kwargs)
        latents = {name: first[name]["value"] for name in sites.latents if name in first}
        again = numpyro.handlers.seed(Unobserve(model, sites.data), jax.random.fold_in(key, 1))
        held = numpyro.handlers.substitute(again, data={**latents, **given})
        values = _values(numpyro.handlers.trace(held).get_trace(*args, **kwargs))
    made = tuple(f"{name}_{part}" for name in given for part in ("latent", "noise"))
    return {name: value for name, value in values.items() if not name.startswith(made)}


def evaluate(
    model: Callable[..., Any],
    sites: Sites,
    data: dict[str, Any],
    latents: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, jax.Array]:
    """All sites at values of the latents, the data, and ``"log_likelihood"``."""
    with numpyro.handlers.block():
        seeded = numpyro.handlers.seed(Observe(model, data), 0)
        held = numpyro.handlers.substitute(seeded, data=latents)
        trace = numpyro.handlers.trace(held).get_trace(*args, **kwargs)
    total = jnp.zeros(())
    for name in sites.data:
        site = trace[name]
        with jax.numpy_rank_promotion("allow"):  # NumPyro's distributions rely on it
            log_prob = site["fn"].log_prob(site["value"])
            scale = 1.0 if site["scale"] is None else site["scale"]
            total = total + jnp.sum(scale * log_prob)
    return {**_values(trace), LOG_LIKELIHOOD: total}


def _values(trace: Any) -> dict[str, jax.Array]:
    return {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] == "deterministic"
        or (site["type"] == "sample" and not isinstance(unwrap(site["fn"]), dist.Unit))
    }
