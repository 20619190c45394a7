"""Rules for the Fisher information, by class of distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import require_constant
from numpyro_genprior.priors import Prior

Parameters = Callable[[Any], PyTree]
"""From a distribution to its parameters θ."""
WhitenTangent = Callable[[Any, Any], PyTree]
"""From a distribution and a tangent dθ to ``F(θ)^(1/2) dθ``."""
Whiten = Callable[[SimpleNamespace, SimpleNamespace], PyTree]
"""The same for `register_elementwise`, with parameters and tangents as attributes."""


class FisherRule(NamedTuple):
    """The parameters of a distribution, and the root of its Fisher information."""

    parameters: Parameters
    whiten: WhitenTangent


RULES: dict[type, FisherRule | str] = {}
"""For each class its rule, or the reason why it has no Fisher information."""


def register_fisher(
    DistributionClass: type[Distribution],
    *,
    parameters: Parameters,
    whiten: WhitenTangent,
) -> None:
    """Add the Fisher information of a class of distributions; replaces an earlier registration.

    Parameters
    ----------
    DistributionClass
        A NumPyro distribution class. Its subclasses inherit the rule, unless they have their own.
    parameters
        From a distribution to a pytree θ of floating-point arrays, each of shape ``batch_shape``
        of the distribution, followed by the shape of that parameter for one batch element.
    whiten
        Function ``whiten(distribution, dθ)``, linear in dθ (a pytree like θ), which returns a
        pytree of arrays w with ``batch_shape`` leading, such that for each batch element
        ``|w|² = dθᵀ F(θ) dθ`` with ``F = E[∇log p ∇log pᵀ]``. Any square root of F will do, and it
        need not be square. The distribution is treated as constant here.

    Raises
    ------
    TypeError
        If the class is not a NumPyro distribution class.

    Notes
    -----
    **Fails when** the batch elements are not independent, or a subclass gives the same attributes
    another meaning: register the subclass as well.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_genprior.infer.fisher import fisher_information, register_fisher
    >>> class Unit(dist.Normal):  # a normal with unit variance
    ...     pass
    >>> register_fisher(
    ...     Unit,
    ...     parameters=lambda unit: {"loc": jnp.broadcast_to(unit.loc, unit.batch_shape)},
    ...     whiten=lambda unit, tangent: tangent["loc"],
    ... )
    >>> fisher_information(Unit(jnp.array(3.0), 1.0))
    Array([[1.]], dtype=float32)
    """
    _check_class(DistributionClass)
    RULES[DistributionClass] = FisherRule(parameters, whiten)


def refuse_fisher(DistributionClass: type[Distribution], reason: str) -> None:
    """Register the reason why a class has no Fisher information, and what to use instead."""
    RULES[DistributionClass] = reason


def find_rule(distribution: Distribution) -> FisherRule | str | None:
    """The rule, or the reason for its absence, of the first class in the MRO that has one, or None.

    For priors without a registered rule it comes from the hooks of `Prior`.
    """
    rule = next((RULES[cls] for cls in type(distribution).__mro__ if cls in RULES), None)
    if rule is not None or not isinstance(distribution, Prior):
        return rule
    if distribution.no_fisher is not None:
        return distribution.no_fisher
    if not distribution.has_fisher:
        return None
    return FisherRule(_parameters_of_prior, type(distribution).fisher_root)


def _parameters_of_prior(prior: Prior) -> PyTree:
    """The parameters of a prior; refuses tangents of the fields that it treats as constant."""
    constants = [getattr(prior, field) for field in prior.fisher_constants]
    refusal = constant_parameters_refusal(type(prior).__name__)
    return jax.tree.map(
        lambda leaf: require_constant(leaf, constants, refusal), prior.fisher_parameters()
    )


def constant_parameters_refusal(name: str) -> str:
    """Why an observed Gaussian whose covariance depends on latent variables is refused."""
    return message(
        f"The covariance of an observed {name} depends on latent variables",
        expected="a fixed covariance: for this distribution only the information about the mean is "
        "implemented",
        remedy="observe with dist.MultivariateNormal, which has the information about its "
        "covariance, or give this class a rule with register_fisher",
    )


def register_elementwise(
    DistributionClass: type[Distribution],
    names: Iterable[str],
    whiten: Whiten,
    *,
    constant: Iterable[str] = (),
    event: Iterable[str] = (),
) -> None:
    """Add a rule whose parameters are attributes of the distribution.

    Parameters
    ----------
    DistributionClass
        A NumPyro distribution class.
    names
        Attributes that are parameters.
    whiten
        Function ``whiten(p, d)`` of the parameters ``p.name`` and their tangents ``d.name``.
    constant
        Further attributes that `whiten` reads from p.
    event
        Those of the attributes that have one event dimension.
    """
    names, constant, event = tuple(names), tuple(constant), tuple(event)

    def read(distribution: Distribution, which: tuple[str, ...]) -> dict[str, jax.Array]:
        return {
            name: broadcast(distribution, getattr(distribution, name), int(name in event))
            for name in which
        }

    register_fisher(
        DistributionClass,
        parameters=lambda distribution: read(distribution, names),
        whiten=lambda distribution, tangent: whiten(
            SimpleNamespace(**read(distribution, names + constant)), SimpleNamespace(**tangent)
        ),
    )


def broadcast(distribution: Distribution, value: Any, event_ndim: int = 0) -> jax.Array:
    """`value` as a floating-point array with the whole batch shape of a distribution."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        value = value.astype(jnp.result_type(float))
    event = value.shape[value.ndim - event_ndim :]
    return jnp.broadcast_to(value, distribution.batch_shape + event)


def _check_class(cls: object) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Distribution)):
        raise TypeError(
            message(
                "register_fisher needs a class",
                expected="a subclass of numpyro.distributions.Distribution",
                got=cls,
                remedy="pass the class itself, e.g. dist.NormalInverseGamma; functions such as "
                "dist.Bernoulli return objects of the classes BernoulliProbs and BernoulliLogits",
            )
        )
