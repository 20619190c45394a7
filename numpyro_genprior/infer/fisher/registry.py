"""Rules for the Fisher information, by class of distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import known
from numpyro_genprior.priors import Prior


class FisherRule(NamedTuple):
    """What `register_fisher` keeps: the parameters of a law, and their whitening."""

    parameters: Callable[[Any], Any]
    whiten: Callable[[Any, Any], Any]


RULES: dict[type, FisherRule | str] = {}
"""A rule, or the reason why there can be none."""


def register_fisher(
    DistributionClass: type[Distribution],
    *,
    parameters: Callable[[Any], Any],
    whiten: Callable[[Any, Any], Any],
) -> None:
    """Add the Fisher information of a class of laws; the last registration counts.

    Parameters
    ----------
    DistributionClass
        A NumPyro distribution class. Its subclasses inherit the rule, unless they have their own.
    parameters
        Function of a law that gives a pytree θ of floating-point arrays, each of shape
        ``law.batch_shape`` + shape of that parameter for one element of the batch.
    whiten
        Function ``whiten(law, dθ)``, linear in dθ (a pytree like θ), that gives a pytree of
        arrays w, each with ``law.batch_shape`` leading, such that over one element of the batch
        ``|w|² = dθᵀ F(θ) dθ`` with ``F = E[∇log p ∇log pᵀ]``. Any square root will do, and it
        need not be square. The law is treated as constant here.

    Raises
    ------
    TypeError
        When the class is no NumPyro distribution class.

    Notes
    -----
    **Fails when** the elements of the batch are not independent, or a subclass has another law
    in the same attributes: register the subclass, too.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_genprior.infer.fisher import fisher_information, register_fisher
    >>> class Unit(dist.Normal):  # a normal with unit variance
    ...     pass
    >>> register_fisher(
    ...     Unit,
    ...     parameters=lambda law: {"loc": jnp.broadcast_to(law.loc, law.batch_shape)},
    ...     whiten=lambda law, tangent: tangent["loc"],
    ... )
    >>> fisher_information(Unit(jnp.array(3.0), 1.0))
    Array([[1.]], dtype=float32)
    """
    _check_class(DistributionClass)
    RULES[DistributionClass] = FisherRule(parameters, whiten)


def refuse_fisher(DistributionClass: type[Distribution], reason: str) -> None:
    """Say why a class of laws has no Fisher information; ends in what to do instead."""
    RULES[DistributionClass] = reason


def find_rule(law: Any) -> FisherRule | str | None:
    """The rule (or refusal) of the nearest class in the method resolution order, or None.

    A prior whose class has no rule states its own, by the hooks of `Prior`.
    """
    rule = next((RULES[cls] for cls in type(law).__mro__ if cls in RULES), None)
    if rule is not None or not isinstance(law, Prior):
        return rule
    if law.no_fisher is not None:
        return law.no_fisher
    return FisherRule(_parameters_of_prior, type(law).fisher_root) if law.has_fisher else None


def _parameters_of_prior(prior: Prior) -> Any:
    """The parameters of a prior, which refuse tangents of what its information takes as known."""
    constants = [getattr(prior, field) for field in prior.fisher_constants]
    refusal = constant_parameters_refusal(type(prior).__name__)
    return jax.tree.map(lambda leaf: known(leaf, constants, refusal), prior.fisher_parameters())


def constant_parameters_refusal(name: str) -> str:
    """Why an observed Gaussian whose covariance depends on latent variables is refused."""
    return message(
        f"The covariance of an observed {name} depends on latent variables",
        expected="a fixed covariance: for this distribution only the information about the mean is "
        "known",
        remedy="observe with dist.MultivariateNormal, which has the information about its "
        "covariance, or give this class a rule with register_fisher",
    )


def register_elementwise(
    DistributionClass: Any,
    names: Iterable[str],
    whiten: Callable[[Any, Any], Any],
    *,
    known: Iterable[str] = (),
    event: Iterable[str] = (),
) -> None:
    """Add a rule whose parameters are attributes, given to `whiten` as ``p.name`` and ``d.name``.

    `known` are attributes that `whiten` reads and that are no parameters; `event` those with one
    event dimension.
    """
    names, known, event = tuple(names), tuple(known), tuple(event)

    def read(law: Any, which: tuple[str, ...]) -> dict[str, jax.Array]:
        return {n: broadcast(law, getattr(law, n), int(n in event)) for n in which}

    register_fisher(
        DistributionClass,
        parameters=lambda law: read(law, names),
        whiten=lambda law, tangent: whiten(
            SimpleNamespace(**read(law, names + known)), SimpleNamespace(**tangent)
        ),
    )


def broadcast(law: Any, value: ArrayLike, event_ndim: int = 0) -> jax.Array:
    """An array with the whole batch shape of a law, floating point."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        value = value.astype(jnp.result_type(float))
    event = value.shape[value.ndim - event_ndim :]
    return jnp.broadcast_to(value, law.batch_shape + event)


def _check_class(cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Distribution)):
        raise TypeError(
            message(
                "register_fisher needs a class",
                expected="a subclass of numpyro.distributions.Distribution",
                got=cls,
                remedy="pass the class itself, e.g. dist.NormalInverseGamma; functions such as "
                "dist.Bernoulli make laws of the classes BernoulliProbs and BernoulliLogits",
            )
        )
