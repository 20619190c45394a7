"""What a model says about its sites: plates, event dimensions, which ones are events of priors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import init_to_sample

from numpyro_genprior.priors import Prior, StandardNormal
from numpyro_genprior.sites.reparam import LATENT_SITE
from numpyro_genprior.sites.wrappers import unwrap
from numpyro_genprior.traces.arguments import Arguments, rebuild


@dataclass(frozen=True)
class Site:
    """One site of a model.

    Attributes
    ----------
    kind
        ``"sample"`` or ``"deterministic"``.
    observed
        Whether it has data.
    role
        ``"event"`` and ``"noise"`` (event-shaped), ``"latent"``, or ``""``: what it is to a prior.
    shape
        Shape of its value.
    batch_ndim
        Number of leading dimensions that are no event dimensions; a ``scan`` adds one.
    own_ndim
        Number of trailing dimensions that are those of one event, or of one latent, of the prior
        itself, before ``expand`` and ``to_event``. That of the site's events for other laws.
    plates
        Triples (name, dimension counted from the right of the batch shape, size).
    event_dims
        Names that the model itself gives, by ``infer={"event_dims": [...]}``.
    """

    name: str
    kind: str
    observed: bool
    role: str
    shape: tuple[int, ...]
    batch_ndim: int
    own_ndim: int
    plates: tuple[tuple[str, int, int], ...]
    event_dims: tuple[str, ...]


def read_model(
    model: Callable[..., Any], arguments: Arguments
) -> tuple[dict[str, Site], dict[str, Any]]:
    """The sites of a model in their order, and the values of the observed ones.

    The model is traced and not run: of all it computes only the data are evaluated.
    """
    sites: dict[str, Site] = {}

    def observed(values: list[Any]) -> dict[str, Any]:
        args, kwargs = rebuild(arguments.structure, values)
        seeded = numpyro.handlers.seed(model, 0)
        started = numpyro.handlers.substitute(seeded, substitute_fn=init_to_sample)
        trace = numpyro.handlers.trace(started).get_trace(*args, **kwargs)
        sites.update({name: _site(trace, name) for name in trace if is_quantity(trace[name])})
        return {name: trace[name]["value"] for name, site in sites.items() if site.observed}

    data = jax.jit(observed)(arguments.values)
    return sites, data


def is_quantity(site: Any) -> bool:
    """Whether a site of a trace holds values, as those of ``factor`` and ``param`` do not."""
    if site["type"] == "deterministic":
        return hasattr(site["value"], "shape") or jnp.ndim(site["value"]) == 0
    return site["type"] == "sample" and not isinstance(unwrap(site["fn"]), dist.Unit)


def _site(trace: Any, name: str) -> Site:
    site = trace[name]
    plates = tuple((frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"])
    batch_ndim = _batch_ndim(trace, name, plates)
    return Site(
        name=name,
        kind=site["type"],
        observed=bool(site.get("is_observed", False)),
        role=_role(trace, name),
        shape=jnp.shape(site["value"]),
        batch_ndim=batch_ndim,
        own_ndim=_own_ndim(trace, name, batch_ndim),
        plates=plates,
        event_dims=tuple(site.get("infer", {}).get("event_dims", ())),
    )


def _role(trace: Any, name: str) -> str:
    if _is_latent(trace, name):
        return "latent"
    base = name.removesuffix("_noise")
    if base != name and _is_latent(trace, f"{base}_latent"):
        return "noise"
    is_prior = isinstance(unwrap(trace[name].get("fn")), Prior)
    return "event" if is_prior or _is_latent(trace, f"{name}_latent") else ""


def _is_latent(trace: Any, name: str) -> bool:
    """Whether a site is the latent of a prior, or made of one: not any site of such a name."""
    if name not in trace:
        return False
    if trace[name].get("infer", {}).get(LATENT_SITE):
        return True
    return name.endswith("_latent") and _is_latent(trace, f"{name}_latent")


def _batch_ndim(trace: Any, name: str, plates: tuple[tuple[str, int, int], ...]) -> int:
    site = trace[name]
    if site["type"] == "sample":
        return jnp.ndim(site["value"]) - site["fn"].event_dim
    latent = f"{name}_latent"
    if _is_latent(trace, latent):  # made of it, in the same plates
        return _batch_ndim(trace, latent, plates)
    return max((-dim for _, dim, _ in plates), default=0)


def _own_ndim(trace: Any, name: str, batch_ndim: int) -> int:
    site, latent = trace[name], trace.get(f"{name}_latent")
    core = unwrap(site.get("fn"))
    if isinstance(core, Prior | StandardNormal):
        return core.event_dim
    if latent is not None:  # as many leading dimensions as its latent
        before = _batch_ndim(trace, f"{name}_latent", ())
        lead = jnp.ndim(latent["value"]) - _own_ndim(trace, f"{name}_latent", before)
        return jnp.ndim(site["value"]) - lead
    return jnp.ndim(site["value"]) - batch_ndim
