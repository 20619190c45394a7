"""Simulate the data of a model, and condition a model on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpyro
from numpyro.primitives import Messenger

from numpyro_genprior.errors import message
from numpyro_genprior.sites.likelihood import log_likelihood
from numpyro_genprior.sites.model_reader import Message, ModelSites, Trace, read_model

LOG_LIKELIHOOD = "log_likelihood"


class Unobserve(Messenger):
    """NumPyro's ``uncondition`` for the sites of some names, ``scan`` bodies included."""

    def __init__(self, fn: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.names = names
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "control_flow" and callable(msg["args"][0]):
            body, *rest = msg["args"]
            msg["args"] = (Unobserve(body, self.names), *rest)
        if msg["type"] == "sample" and msg["is_observed"] and msg["name"] in self.names:
            numpyro.handlers.uncondition.process_message(self, msg)  # pyright: ignore


class Observe(Messenger):
    """NumPyro's ``condition``, which also replaces the data of an observed event of a prior."""

    def __init__(self, fn: Callable[..., Any], data: Mapping[str, Any]) -> None:
        self.data = data
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("condition", self.data))
        if msg["type"] != "sample" or msg.get("_control_flow_done", False):
            return
        if msg["name"] in self.data:
            msg["value"], msg["is_observed"] = self.data[msg["name"]], True


class Replace(Messenger):
    """Replaces the values of sites, those of priors' events included, whatever their latents are.

    Under NumPyro's ``substitute``, an event whose latent is given follows from that latent.
    """

    def __init__(self, fn: Callable[..., Any], data: Mapping[str, jax.Array]) -> None:
        self.data = data
        super().__init__(fn)

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("substitute", dict(self.data)))
        if msg["type"] in ("sample", "deterministic") and msg["name"] in self.data:
            msg["value"] = self.data[msg["name"]]


class Conditioned:
    """A model as a function of its data: ``model(data, args, kwargs)``."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def __call__(self, data: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return Observe(self.model, data)(*args, **kwargs)


@dataclass(frozen=True)
class Sites:
    """The sites of a model whose data are simulated.

    Attributes
    ----------
    model
        The sites that `read_model` found.
    data
        Names of the simulated sites.
    """

    model: ModelSites
    data: tuple[str, ...]

    @property
    def latents(self) -> tuple[str, ...]:
        """Sample sites without data."""
        return tuple(name for name in self.model.latents if name not in self.data)

    @property
    def events(self) -> tuple[str, ...]:
        """Recorded events of priors that are neither observed nor simulated, outermost only."""
        return self.model.events(data=self.data)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the values of all sites."""
        return {name: site.shape for name, site in self.model.items() if site.has_value}


def read_sites(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    observed: str | tuple[str, ...] | None,
    method: str,
) -> Sites:
    """Read the sites of a model, and choose those that are simulated.

    Parameters
    ----------
    model, args, kwargs
        The model and its arguments.
    observed
        Names of the sites to simulate. None: all that have data.
    method
        Name of the diagnostic, for messages.

    Raises
    ------
    ValueError
        If nothing is observed, `observed` names no sample site, or a latent is discrete.

    Warns
    -----
    UserWarning
        If a term of the density is not simulated: ``factor``, or data that `observed` leaves out.
    """
    model_sites = read_model(model, args, kwargs)
    names = (observed,) if isinstance(observed, str) else observed
    data = model_sites.data if names is None else tuple(names)
    missing = [name for name in data if name not in model_sites.sample]
    if missing or not data:
        raise ValueError(
            message(
                f"{method} simulates the data, and the model has none"
                if not data
                else f"{method} cannot observe {missing[0]!r}",
                expected="sample sites with data"
                if not data
                else f"names among {list(model_sites.sample)}",
                remedy='pass data of the right shape, or name the sites: observed=("y",)',
            )
        )
    kept = [name for name in model_sites.observed if name not in data]
    if kept:
        warnings.warn(
            f"{method} simulates {', '.join(data)} and leaves {', '.join(kept)} as they are: if "
            "they depend on the latents, data and latents do not come from one joint distribution.",
            stacklevel=3,
        )
    sites = Sites(model_sites, data)
    discrete = [name for name in sites.latents if model_sites[name].discrete]
    if discrete:
        raise ValueError(
            message(
                f"{method}: latent site {discrete[0]!r} is discrete",
                remedy="marginalise it, or leave it out",
            )
        )
    return sites


def simulate(
    model: Callable[..., Any],
    sites: Sites,
    key: jax.Array,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """Draw all sites once, data included.

    Parameters
    ----------
    model, sites, args, kwargs
        The model, what `read_sites` returned, and the model's arguments.
    key
        Random key.
    given
        Values of sites, events of priors among them, that replace the drawn ones: the data are
        drawn given these. The latents and noise that such an event is made from are left out of the
        result.

    Raises
    ------
    ValueError
        If an event in `given` is decoded inside ``scan``.
    """
    events = [sites.model[name] for name in given or () if name in sites.model]
    scanned = [site.name for site in events if site.in_scan and site.kind == "deterministic"]
    if scanned:
        raise ValueError(
            message(
                f"Data cannot be simulated from given values of {scanned[0]!r}, which is decoded "
                "inside a scan: each step would use its own",
                remedy="sample the event before the scan, and pass it to the scan",
            )
        )
    with numpyro.handlers.block():
        seeded = numpyro.handlers.seed(Unobserve(model, sites.data), key)
        if not given:
            return _values(sites, numpyro.handlers.trace(seeded).get_trace(*args, **kwargs))
        draw = numpyro.handlers.trace(seeded).get_trace(*args, **kwargs)
        latents = {name: draw[name]["value"] for name in sites.latents if name in draw}
        reseeded = numpyro.handlers.seed(Unobserve(model, sites.data), jax.random.fold_in(key, 1))
        fixed = Replace(numpyro.handlers.substitute(reseeded, data=latents), given)
        values = _values(sites, numpyro.handlers.trace(fixed).get_trace(*args, **kwargs))
    replaced = {part for name in given for part in sites.model.made_from(name)}
    return {name: value for name, value in values.items() if name not in replaced}


def evaluate(
    model: Callable[..., Any],
    sites: Sites,
    data: Mapping[str, jax.Array],
    latents: Mapping[str, jax.Array],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, jax.Array]:
    """All sites at given values of the latents, the data, and ``"log_likelihood"``."""
    with numpyro.handlers.block():
        seeded = numpyro.handlers.seed(Observe(model, data), 0)
        fixed = numpyro.handlers.substitute(seeded, data=dict(latents))
        trace = numpyro.handlers.trace(fixed).get_trace(*args, **kwargs)
    return {**_values(sites, trace), LOG_LIKELIHOOD: log_likelihood(trace, sites.data)}


def _values(sites: Sites, trace: Trace) -> dict[str, jax.Array]:
    return {name: trace[name]["value"] for name in sites.shapes if name in trace}
