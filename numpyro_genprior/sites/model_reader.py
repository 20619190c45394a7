"""Read the sites of a model (their roles, shapes and plates) from one abstract trace."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from numpyro_genprior.priors import Prior, StandardNormal
from numpyro_genprior.sites.reparam import LATENT_OF, NOISE_OF
from numpyro_genprior.sites.wrappers import is_masked, unwrap

Message: TypeAlias = dict[str, Any]
"""What NumPyro records of one site."""

Trace: TypeAlias = Mapping[str, Message]
"""What NumPyro records of a model: a message for each site, by name."""

Role: TypeAlias = Literal["latent", "event", "noise", "data", "factor", "other"]


class Plate(NamedTuple):
    """A plate that a site is in: its name, its dimension counted from the right of the batch
    shape (-1, -2, ...), and its size (after subsampling).
    """

    name: str
    dim: int
    size: int


@dataclass(frozen=True)
class Site:
    """One site of a model.

    Attributes
    ----------
    name
        Name of the site, the prefixes of ``scope`` included.
    kind
        NumPyro's type of the site: ``"sample"``, ``"deterministic"``, ``"param"``, ``"plate"``.
    role
        What the site is to the generative priors of the model: ``"latent"`` of an event,
        ``"event"``, decoder ``"noise"`` of an event; ``"data"`` and ``"factor"`` for other
        observed sites; ``"other"`` for the rest. The latent of an event that is itself an
        event (decoded from a nested latent) has the role ``"latent"``.
    observed
        Whether it is a sample site with a value. ``numpyro.factor`` counts as observed.
    has_value
        Whether it holds an array that is a quantity of the model: the value of a sample or
        deterministic site, and not of ``factor``, ``param`` or ``plate``.
    shape
        Shape of its value, () if the value is not an array.
    batch_ndim
        Number of leading dimensions that are not event dimensions; a ``scan`` adds one.
    core_ndim
        Number of trailing dimensions of one event, or of one latent, of the prior itself, before
        ``expand`` and ``to_event``. For other sites, the number of event dimensions.
    plates
        The plates around it, the innermost first.
    event_dims
        Names that the model gives its event dimensions, by ``infer={"event_dims": [...]}``.
    distribution
        Class of its distribution inside ``expand``, ``to_event`` and ``mask``; None if it has none.
    discrete, masked, scaled
        Whether its support is discrete, whether its distribution has a mask, and whether its log
        density is scaled (by ``handlers.scale`` or a subsampled plate).
    in_scan
        Whether it is in the body of a ``scan``.
    full_size
        For a plate, its size before subsampling. The shape is that after subsampling.
    event
        For a latent or noise, the name of its event (which ``record=False`` keeps out of a trace).
    latent, noise
        For an event, the names of the sites that determine it.
    """

    name: str
    kind: str
    role: Role
    observed: bool
    has_value: bool
    shape: tuple[int, ...]
    batch_ndim: int
    core_ndim: int
    plates: tuple[Plate, ...] = ()
    event_dims: tuple[str, ...] = ()
    distribution: type | None = None
    discrete: bool = False
    masked: bool = False
    scaled: bool = False
    in_scan: bool = False
    full_size: int | None = None
    event: str | None = None
    latent: str | None = None
    noise: str | None = None

    @property
    def is_event(self) -> bool:
        """Whether it is an event of a prior, a nested latent included."""
        if self.latent is not None:
            return True
        return self.distribution is not None and issubclass(self.distribution, Prior)


@dataclass(frozen=True)
class ModelSites(Mapping[str, Site]):
    """The sites of a model by name, in their order in the model.

    Immutable and hashable, so that it can be static data of a compiled program.
    """

    sites: tuple[Site, ...]

    @functools.cached_property
    def _by_name(self) -> dict[str, Site]:
        return {site.name: site for site in self.sites}

    def __getitem__(self, name: str) -> Site:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def sample(self) -> tuple[str, ...]:
        """Sample sites, with and without data; not ``numpyro.factor``."""
        return self._names(lambda s: s.kind == "sample" and s.role != "factor")

    @property
    def latents(self) -> tuple[str, ...]:
        """Sample sites without a value: what is to be inferred."""
        return self._names(lambda s: s.kind == "sample" and not s.observed)

    @property
    def observed(self) -> tuple[str, ...]:
        """Sample sites with a value; ``numpyro.factor`` among them."""
        return self._names(lambda s: s.observed)

    @property
    def data(self) -> tuple[str, ...]:
        """Sample sites with data, observed events of priors included; not ``numpyro.factor``."""
        return self._names(lambda s: s.observed and s.role != "factor")

    def events(self, *, data: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Recorded events of priors without data, nested ones left out.

        Parameters
        ----------
        data
            Further events to leave out.
        """
        found = self._names(lambda s: s.is_event and not s.observed and s.name not in data)
        return tuple(name for name in found if self[name].event not in found)

    def made_from(self, event: str) -> tuple[str, ...]:
        """The latent and noise sites that determine an event, nested ones included."""
        site = self.get(event)
        if site is None:
            return ()
        parts = tuple(name for name in (site.latent, site.noise) if name is not None)
        return tuple(n for part in parts for n in (part, *self.made_from(part)))

    def _names(self, condition: Callable[[Site], bool]) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites if condition(site))


def read_model(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    inspect: Callable[[ModelSites, Trace], None] | None = None,
) -> ModelSites:
    """Read the sites of a model by tracing it once, without running it.

    Parameters
    ----------
    model
        A NumPyro model. Latent sites get zeros for values (discrete ones are drawn).
    args, kwargs
        Its arguments. They are concrete inside the trace if they are concrete here, so that the
        model may look at its data.
    inspect
        Called with the result and the trace while the model is traced, for what only the trace
        has (distributions). Its arrays are tracers: keep only their shapes and dtypes.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, numpyro_genprior as ngp
    >>> from numpyro_genprior.sites.model_reader import read_model
    >>> @ngp.latent
    ... def model(prior, y=None):
    ...     x = numpyro.sample("x", prior)
    ...     numpyro.sample("y", dist.Normal(x, 0.1).to_event(1), obs=y)
    >>> sites = read_model(model, (ngp.GANPrior(lambda z: jnp.tile(z, 2), 3), jnp.zeros(6)))
    >>> [(site.name, site.role, site.shape) for site in sites.values()]
    [('x_latent', 'latent', (3,)), ('x', 'event', (6,)), ('y', 'data', (6,))]
    """
    found: list[ModelSites] = []

    def read() -> None:
        trace = placeholder_trace(model, args, kwargs or {})
        found.append(read_trace(trace))
        if inspect is not None:
            inspect(found[0], trace)

    jax.eval_shape(read)
    return found[0]


def placeholder_trace(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Trace:
    """Trace of a model whose continuous latent sites are zero, whatever their support."""
    seeded = numpyro.handlers.seed(model, 0)
    substituted = numpyro.handlers.substitute(seeded, substitute_fn=_zeros)
    with numpyro.handlers.block():
        return numpyro.handlers.trace(substituted).get_trace(*args, **kwargs)


def _zeros(site: Message) -> jax.Array | None:
    if site["type"] != "sample" or site["is_observed"] or _is_discrete(site["fn"]):
        return None
    return jnp.zeros(site["kwargs"]["sample_shape"] + site["fn"].shape())


def _is_discrete(fn: dist.Distribution) -> bool:
    return bool(getattr(fn.support, "is_discrete", False))


def read_trace(trace: Trace) -> ModelSites:
    """Read the sites of a trace that NumPyro recorded."""
    links = _Links(trace)
    return ModelSites(tuple(_site(trace, name, links) for name in trace))


class _Links:
    """The latent and noise sites of each event, by the marks of `LatentReparam`.

    A mark holds the name of the event without the prefixes of outer ``scope`` handlers, which are
    the same for an event, its latent and its noise.
    """

    def __init__(self, trace: Trace) -> None:
        self.latent: dict[str, str] = {}  # of an event
        self.noise: dict[str, str] = {}
        self.event_of_latent: dict[str, str] = {}
        self.event_of_noise: dict[str, str] = {}
        for name, site in trace.items():
            marks = site.get("infer") or {}
            if LATENT_OF in marks:
                prefix = name.removesuffix(f"{marks[LATENT_OF][0]}_latent")
                for event in marks[LATENT_OF]:  # the innermost first
                    self.latent[f"{prefix}{event}"] = f"{prefix}{event}_latent"
                    self.event_of_latent[f"{prefix}{event}_latent"] = f"{prefix}{event}"
            if NOISE_OF in marks:
                prefix = name.removesuffix(f"{marks[NOISE_OF]}_noise")
                self.noise[f"{prefix}{marks[NOISE_OF]}"] = name
                self.event_of_noise[name] = f"{prefix}{marks[NOISE_OF]}"


def _site(trace: Trace, name: str, links: _Links) -> Site:
    site = trace[name]
    fn = site["fn"] if site["type"] == "sample" else None
    observed = bool(site.get("is_observed", False))
    value: Any = site.get("value")
    role = _role(name, fn, observed, links)
    plates = tuple(Plate(f.name, f.dim, f.size) for f in site.get("cond_indep_stack") or ())
    return Site(
        name=name,
        kind=site["type"],
        role=role,
        observed=observed,
        has_value=site["type"] in ("sample", "deterministic")
        and role != "factor"
        and _is_array(value),
        shape=jnp.shape(value) if _is_array(value) else (),
        batch_ndim=_batch_ndim(trace, name, plates, links),
        core_ndim=_core_ndim(trace, name, plates, links),
        plates=plates,
        event_dims=tuple((site.get("infer") or {}).get("event_dims", ())),
        distribution=None if fn is None else type(unwrap(fn)),
        discrete=fn is not None and _is_discrete(fn),
        masked=fn is not None and is_masked(fn),
        scaled=site.get("scale") is not None and site["type"] == "sample",
        in_scan=site.get("_control_flow_done") is True,
        full_size=site["args"][0] if site["type"] == "plate" else None,
        event=links.event_of_latent.get(name) or links.event_of_noise.get(name),
        latent=links.latent.get(name),
        noise=links.noise.get(name),
    )


def _role(name: str, fn: dist.Distribution | None, observed: bool, links: _Links) -> Role:
    if name in links.event_of_latent:
        return "latent"
    if name in links.event_of_noise:
        return "noise"
    if isinstance(unwrap(fn), dist.Unit):
        return "factor"
    if name in links.latent or isinstance(unwrap(fn), Prior):
        return "event"
    return "data" if observed else "other"


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") or isinstance(value, bool | int | float | complex)


def _ndim(trace: Trace, name: str) -> int:
    value: Any = trace[name].get("value")
    return jnp.ndim(value) if _is_array(value) else 0


def _batch_ndim(trace: Trace, name: str, plates: tuple[Plate, ...], links: _Links) -> int:
    site = trace[name]
    if site["type"] == "sample":
        return _ndim(trace, name) - site["fn"].event_dim
    latent = links.latent.get(name)
    if latent is not None and latent in trace:  # in the same plates
        return _batch_ndim(trace, latent, plates, links)
    return max((-plate.dim for plate in plates), default=0)


def _core_ndim(trace: Trace, name: str, plates: tuple[Plate, ...], links: _Links) -> int:
    site = trace[name]
    core = unwrap(site["fn"]) if site["type"] == "sample" else None
    if isinstance(core, Prior | StandardNormal):
        return core.event_dim
    latent = links.latent.get(name)
    if latent is not None and latent in trace:  # as many leading dimensions as its latent
        return _ndim(trace, name) - _ndim(trace, latent) + _core_ndim(trace, latent, plates, links)
    return _ndim(trace, name) - _batch_ndim(trace, name, plates, links)


__all__ = ["ModelSites", "Plate", "Site", "Trace", "placeholder_trace", "read_model", "read_trace"]
