"""`latent` and `sample`: infer the latents of the priors in a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.primitives import _PYRO_STACK, Messenger

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior
from numpyro_genprior.sites.model_reader import Message
from numpyro_genprior.sites.outside_values import is_given
from numpyro_genprior.sites.reparam import LatentReparam, Noise, needs_latent
from numpyro_genprior.sites.wrappers import unwrap

FOLLOWS_LATENT = "follows its latent"
"""Value of NumPyro's mark ``_control_flow_done`` that makes ``substitute`` skip an event."""


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
        False keeps (large) events out of the trace: only latents are kept, from which `ngp.decode`
        or `ngp.event_moments` compute events afterwards.

    Raises
    ------
    ValueError
        If ``condition``, ``do``, ``substitute`` or ``replay`` from outside gives a value to an
        event that is made from its latent, and not to its latent and noise sites as well: the value
        would not reach them. (If all of them have values, the event is decoded from its latent.)
        If a site cannot be reparameterised, see `LatentReparam`.
    TypeError
        If `model` is a distribution.

    Notes
    -----
    **Fails when** the model uses a prior outside of ``numpyro.sample``, e.g. by its `log_prob`: the
    handler sees sample sites only.

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
        noise: Noise = "auto",
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
        self.noise: Noise = noise
        self.explicit, self.record = explicit, record
        self._reparam = LatentReparam(noise, explicit=explicit)
        self.in_loop = False
        super().__init__(model, config=self._applies)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fn is None:  # @ngp.latent(explicit=True)
            options: Any = {"explicit": self.explicit, "noise": self.noise, "record": self.record}
            return latent(*args, **options, **kwargs)
        return super().__call__(*args, **kwargs)

    def _applies(self, site: Message) -> LatentReparam | None:
        prior = unwrap(site["fn"])
        if not isinstance(prior, Prior) or not needs_latent(prior, self.explicit):
            return None
        observed = site["value"] is not None and prior.density == "exact"
        return None if observed else self._reparam

    def process_message(self, msg: Message) -> None:
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
        if not self.record and msg["value"] is None:
            self._check_unrecorded(name, unwrap(msg["fn"]))
        position = max(i for i, handler in enumerate(_PYRO_STACK) if handler is self)
        outer, inner = _PYRO_STACK[:position], _PYRO_STACK[position + 1 :]
        parts = self._reparam.made_from(name, unwrap(msg["fn"]), observed=msg["value"] is not None)
        given = is_given(msg, parts, outer)
        if msg["kwargs"].get("sample_shape"):
            msg["fn"] = msg["fn"].expand_by(msg["kwargs"]["sample_shape"])
            msg["kwargs"]["sample_shape"] = ()
        fn, value = self._reparam(_unscoped(name, inner), msg["fn"], msg["value"])
        if fn is not None:
            msg["fn"] = fn
            return
        if not self.record:
            msg["stop"] = True
        _make_deterministic(msg, value)
        if given:  # as its latent is, from which the event is decoded
            msg["_control_flow_done"] = FOLLOWS_LATENT

    def _check_unrecorded(self, name: str, prior: Prior) -> None:
        if prior.density == "conditional" and self.noise != "omit":
            raise ValueError(
                message(
                    f"Site {name!r} is not recorded, but its decoder noise, as large as the event, "
                    "is a sample site",
                    remedy='use noise="omit" with record=False, or a likelihood that marginalises '
                    "the decoder noise",
                )
            )

    def _observe_in_loop(self, msg: Message) -> None:
        """Replace an observed event of an exact prior by a factor, its log density.

        The site itself would be recorded with one copy of the weights for each step of the loop.
        """
        numpyro.factor(f"{msg['name']}_log_prob", msg["fn"].log_prob(msg["value"]))
        _make_deterministic(msg, msg["value"])

    def _enter_control_flow(self, msg: Message) -> None:
        """Decorate the bodies of scan and cond, which NumPyro hides from outer handlers."""

        def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
            handler = latent(body, explicit=True, noise=self.noise, record=self.record)
            handler.in_loop = True
            return handler

        first, *rest = msg["args"]
        if callable(first):  # scan(body, init, xs, ...)
            msg["args"] = (decorate(first), *rest)
        else:  # cond(predicate, true_fun, false_fun, operand)
            msg["args"] = (first, *(decorate(f) if callable(f) else f for f in rest))


def _check_observed(msg: Message) -> None:
    """Refuse a value whose trailing dimensions are not the event shape of the prior."""
    prior = unwrap(msg["fn"])
    if not isinstance(prior, Prior):
        return
    shape, got = msg["fn"].event_shape, jnp.shape(msg["value"])
    if got[max(len(got) - len(shape), 0) :] != shape:
        raise ValueError(
            message(
                f"Site {msg['name']!r} is observed, and the data are not an event of its prior",
                expected=f"shape (..., {', '.join(map(str, shape))})",
                got=got,
                remedy="reshape the data; measurements of an event belong in a likelihood",
            )
        )


def _make_deterministic(msg: Message, value: ArrayLike | None) -> None:
    """Turn a sample site into a deterministic one, as NumPyro's ``reparam`` does."""
    kept = ("type", "name", "value", "cond_indep_stack", "stop")
    msg["type"], msg["value"] = "deterministic", value
    for key in [key for key in msg if key not in kept]:
        del msg[key]


def _unscoped(name: str, inner: Sequence[Messenger]) -> str:
    """The name without the prefixes of inner ``scope`` handlers, which will be added again."""
    for handler in inner:
        if isinstance(handler, numpyro.handlers.scope) and "sample" not in handler.hide_types:
            name = name.removeprefix(f"{handler.prefix}{handler.divider}")
    return name


def sample(
    name: str,
    prior: Distribution,
    *,
    noise: Noise = "auto",
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
        A prior, possibly with ``expand``, ``mask`` or ``to_event`` applied.
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
        If the site cannot be reparameterised, see `latent` and `LatentReparam`.
    TypeError
        If `prior` is not a distribution.
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
