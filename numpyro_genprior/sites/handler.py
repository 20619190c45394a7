"""`latent` and `sample`: the priors of a model, by their latents."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.primitives import _PYRO_STACK

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior
from numpyro_genprior.sites.reparam import LatentReparam, needs_latent
from numpyro_genprior.sites.wrappers import unwrap


class latent(numpyro.handlers.reparam):
    """Infer the latents of the generative priors in a model.

    A handler, and a decorator. In the decorated model every site ``x`` whose prior has no exact
    density becomes the sample site ``x_latent`` and the deterministic site ``x``. Priors with
    exact densities are left as they are, unless ``explicit=True``; inside ``scan`` they always
    use the latent site.

    Parameters
    ----------
    model
        The model; None to decorate with options, ``@ngp.latent(explicit=True)``.
    explicit
        Reparameterise exact priors (flows, Gaussians), too: ``x = T(x_latent)``.
    noise
        Treatment of the decoder noise of a `VAEPrior`, see `LatentReparam`.
    record
        False keeps events out of the trace (large events): only latents are kept, and
        `ngp.decode` or `ngp.event_moments` make events of them afterwards.

    Raises
    ------
    ValueError
        When ``condition``, ``do``, ``substitute`` or ``replay`` from outside names an event that
        is made of its latent: its value would not reach the latent. And for sites that cannot
        be, see `LatentReparam`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> prior = ngp.GANPrior(lambda z: jnp.tile(z, 2), 3)
    >>> @ngp.latent
    ... def model(prior, y=None):
    ...     x = numpyro.sample("x", prior)
    ...     numpyro.sample("y", dist.Normal(x, 0.1).to_event(1), obs=y)
    >>> trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(prior)
    >>> [(name, site["type"]) for name, site in trace.items()]
    [('x_latent', 'sample'), ('x', 'deterministic'), ('y', 'sample')]
    """

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        *,
        explicit: bool = False,
        noise: str | None = None,
        record: bool = True,
    ) -> None:
        if isinstance(model, Distribution):
            raise TypeError(
                message(
                    "ngp.latent decorates a model",
                    expected="a function with numpyro.sample statements",
                    got=type(model).__name__,
                    remedy='decorate the model, or write ngp.sample("x", prior) for this site',
                )
            )
        self.explicit, self.noise, self.record = explicit, noise, record
        self._reparam = LatentReparam(noise, explicit=explicit)
        self.in_loop = False
        self._events: dict[int, Any] = {}  # message in flight -> the event made for it
        super().__init__(model, config=self._applies)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fn is None:  # @ngp.latent(explicit=True)
            options: Any = {"explicit": self.explicit, "noise": self.noise, "record": self.record}
            return latent(*args, **options, **kwargs)
        return super().__call__(*args, **kwargs)

    def _applies(self, site: dict[str, Any]) -> LatentReparam | None:
        prior = unwrap(site["fn"])
        if not isinstance(prior, Prior) or not needs_latent(prior, self.explicit):
            return None
        observed = site["value"] is not None and prior.density == "exact"
        return None if observed else self._reparam

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            self._enter_control_flow(msg)
        if msg["type"] != "sample":
            return
        if msg["value"] is not None:
            _check_observed(msg)
        if self._applies(msg) is None:
            if self.in_loop and msg["value"] is not None and isinstance(unwrap(msg["fn"]), Prior):
                self._observe_in_loop(msg)
            return
        name = msg["name"]
        place = max(i for i, handler in enumerate(_PYRO_STACK) if handler is self)
        outer, inner = _PYRO_STACK[:place], _PYRO_STACK[place + 1 :]
        _refuse_outside_values(msg, outer)
        if msg["kwargs"].get("sample_shape"):
            msg["fn"] = msg["fn"].expand_by(msg["kwargs"]["sample_shape"])
            msg["kwargs"]["sample_shape"] = ()
        fn, value = self._reparam(_unscoped(name, inner), msg["fn"], msg["value"])
        if fn is not None:
            msg["fn"] = fn
            return
        if not self.record:
            self._check_unrecorded(name, unwrap(msg["fn"]))
            msg["stop"] = True
        _make_deterministic(msg, value)
        self._events[id(msg)] = value

    def postprocess_message(self, msg: Any) -> None:
        event = self._events.pop(id(msg), None)
        if event is not None and msg["value"] is not event and not _latent_given(msg["name"]):
            raise ValueError(_value_from_outside(msg["name"], "substitute"))

    def _check_unrecorded(self, name: str, prior: Any) -> None:
        if prior.density == "conditional" and self.noise != "none":
            raise ValueError(
                message(
                    f"Site {name!r} is not recorded, but its decoder noise, as large as the event, "
                    "is a sample site",
                    remedy='use noise="none" with record=False, or a likelihood that marginalises '
                    "the decoder noise",
                )
            )

    def _observe_in_loop(self, msg: Any) -> None:
        """Enter an observed event of an exact prior by its log density alone.

        The site itself would be recorded with one copy of the weights per step of the loop.
        """
        numpyro.factor(f"{msg['name']}_log_prob", msg["fn"].log_prob(msg["value"]))
        _make_deterministic(msg, msg["value"])

    def _enter_control_flow(self, msg: Any) -> None:
        """NumPyro hides the bodies of scan and cond from outer handlers: go inside."""

        def inside(body: Callable[..., Any]) -> Callable[..., Any]:
            handler = latent(body, explicit=True, noise=self.noise, record=self.record)
            handler.in_loop = True
            return handler

        first, *rest = msg["args"]
        if callable(first):  # scan(body, init, xs, ...)
            msg["args"] = (inside(first), *rest)
        else:  # cond(predicate, true_fun, false_fun, operand)
            msg["args"] = (first, *(inside(f) if callable(f) else f for f in rest))


def _check_observed(msg: Any) -> None:
    """The trailing dimensions of a value must be those of an event of the prior."""
    prior = unwrap(msg["fn"])
    if not isinstance(prior, Prior):
        return
    shape, got = msg["fn"].event_shape, jnp.shape(msg["value"])
    if got[max(len(got) - len(shape), 0) :] != shape:
        raise ValueError(
            message(
                f"Site {msg['name']!r} is observed, and the data are no event of its prior",
                expected=f"shape (..., {', '.join(map(str, shape))})",
                got=got,
                remedy="reshape the data; what is measured of an event belongs in a likelihood",
            )
        )


def _make_deterministic(msg: Any, value: Any) -> None:
    """As NumPyro's ``reparam`` does when a site has become a function of others."""
    kept = ("type", "name", "value", "cond_indep_stack", "stop")
    msg["type"], msg["value"] = "deterministic", value
    for key in [key for key in msg if key not in kept]:
        del msg[key]


def _refuse_outside_values(msg: Any, outer: list[Any]) -> None:
    """No silent prior draws: a value for the event from outside would not reach the latent."""
    handlers, name = numpyro.handlers, msg["name"]
    for handler in reversed(outer):
        if isinstance(handler, handlers.scope) and "sample" not in handler.hide_types:
            name = f"{handler.prefix}{handler.divider}{name}"
        if isinstance(handler, (handlers.condition, handlers.do)):
            given = handler.data is not None and name in handler.data
            function = getattr(handler, "condition_fn", None)
            if given or (function is not None and function({**msg, "name": name}) is not None):
                raise ValueError(_value_from_outside(name, type(handler).__name__))
        if isinstance(handler, handlers.replay):
            site = (handler.trace or {}).get(name)
            if site is not None and site["type"] == "sample":
                raise ValueError(_value_from_outside(name, "replay"))
        if isinstance(handler, handlers.substitute) and handler.substitute_fn is not None:
            function = handler.substitute_fn
            if _has_value(function, name) and not _has_value(function, f"{name}_latent"):
                raise ValueError(_value_from_outside(name, "Predictive, substitute or an init"))


def _has_value(function: Callable[[Any], Any], name: str) -> bool:
    """Whether a function of sites, as `Predictive` and `init_to_value` use, knows a site by name.

    Functions that need more than the name (an init strategy that draws) have no value for it.
    Into the bodies of ``scan`` and ``cond`` NumPyro hands given values as partial functions.
    """
    if isinstance(function, functools.partial) and function.args:
        given = function.args[0]
        if isinstance(given, dict):
            return name in given
        if callable(given):
            return _has_value(given, name)
    try:
        return function({"type": "sample", "name": name, "is_observed": False}) is not None
    except Exception:
        return False


def _latent_given(name: str) -> bool:
    """Whether a ``substitute`` on the stack gives the latent of event `name`, too."""
    return any(
        isinstance(handler, numpyro.handlers.substitute)
        and handler.data is not None
        and f"{name}_latent" in handler.data
        for handler in _PYRO_STACK
    )


def _value_from_outside(name: str, handler: str) -> str:
    return message(
        f"{handler} gives a value to {name!r}, which is made of its latent {name + '_latent'!r}: "
        "the latent would be drawn from the prior all the same",
        remedy=f"give a value to {name + '_latent'!r}, or observe {name!r} through a likelihood",
    )


def _unscoped(name: str, inner: list[Any]) -> str:
    """The name before inner ``scope`` handlers, which will prefix it again."""
    for handler in inner:
        if isinstance(handler, numpyro.handlers.scope) and "sample" not in handler.hide_types:
            name = name.removeprefix(f"{handler.prefix}{handler.divider}")
    return name


def sample(
    name: str,
    prior: Distribution,
    *,
    noise: str | None = None,
    record: bool = True,
    obs: ArrayLike | None = None,
    explicit: bool = False,
) -> Any:
    """Sample an event from a prior by its latent: `latent` for one site.

    Parameters
    ----------
    name
        Name of the event; the latent's is ``name + "_latent"``.
    prior
        A prior, possibly expanded, masked or made an event.
    noise, record, explicit
        As for `latent`.
    obs
        Observed event, for a `VAEPrior` with centered noise or a prior with an exact density.

    Returns
    -------
    jax.Array
        The event, of shape ``batch_shape + event_shape``, plates included.

    Raises
    ------
    ValueError
        As `latent` and `LatentReparam` do.
    """
    if not isinstance(prior, Distribution):
        raise TypeError(
            message(
                f"ngp.sample({name!r}, ...)",
                expected="a prior or another distribution",
                got=type(prior).__name__,
                remedy="make a prior of a network: ngp.GANPrior(net, latent)",
            )
        )
    with latent(explicit=explicit, noise=noise, record=record):
        return numpyro.sample(name, prior, obs=None if obs is None else jnp.asarray(obs))
