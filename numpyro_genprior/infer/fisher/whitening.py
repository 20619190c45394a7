"""`whitened_parameters`: the parameters of a law in units of what one observation can tell."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import known
from numpyro_genprior.infer.fisher.registry import FisherRule, find_rule
from numpyro_genprior.sites.wrappers import unwrap


def whitened_parameters(
    at: dist.Distribution,
    law: dist.Distribution,
    *,
    scale: ArrayLike | None = None,
    value: ArrayLike | None = None,
    name: str | None = None,
) -> jax.Array:
    """``F(at)^(1/2) θ(law)``, flat: its Jacobian is the square root of the information.

    With ``f(x) = whitened_parameters(law(x₀), law(x))`` and J the Jacobian of the parameters, the
    Jacobian of f at x₀ is ``F^(1/2) J``. So ``JᵀFJ v`` is one `jax.jvp` (or the linear function
    of `jax.linearize`) and one transposed product of one function. The value of f means nothing
    by itself.

    Parameters
    ----------
    at
        Where the information is taken; constant (`jax.lax.stop_gradient`). May be `law` itself.
    law
        A law of the same structure, whose parameters are whitened.
    scale
        Factor on the log density, as a NumPyro site has it; broadcasts with the batch shape.
    value
        The observed value. Only its shape is used: NumPyro lets a value have more dimensions
        than its law, and each of its elements is then an observation.
    name
        Name of the site, for messages.

    Returns
    -------
    jax.Array
        Of shape ``(rows,)``: for each element of the batch the rows of its root, those of masked
        elements 0.

    Raises
    ------
    ValueError
        When the law has no rule, or parameters that its rule takes as known depend on what is
        differentiated (raised by the differentiation).

    Notes
    -----
    **Fails when** a parameter lies on the edge of its range: a Poisson rate of 0, a probability
    of 0 or 1, a scale of 0 have infinite information, and such an element contributes 0 (what the
    chain rule makes of a rate ``exp(η)`` or a probability ``softmax(η)`` that underflows). Where
    the parameter is free to move from the edge the information is missed. Second derivatives are
    those of a constant `at`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_genprior.infer.fisher import whitened_parameters
    >>> x = jnp.array([1.0, 2.0])
    >>> law = lambda x: dist.Normal(x, 0.5).to_event(1)
    >>> jax.jacobian(lambda x: whitened_parameters(law(x), law(x)))(x)[:2]
    Array([[2., 0.],
           [0., 2.]], dtype=float32)
    """
    where = "An observed law" if name is None else f"The law of site '{name}'"
    leaves, batch = _leaves(at, law, where), tuple(law.batch_shape)
    full = batch
    if value is not None:
        outer = jnp.ndim(value) - law.event_dim
        full = jnp.broadcast_shapes(full, jnp.shape(value)[: max(outer, 0)])
    if scale is not None:
        # The metric is taken at one point: its weights are no part of what is differentiated.
        scale = jax.lax.stop_gradient(jnp.asarray(scale))
        full = jnp.broadcast_shapes(full, jnp.shape(scale))
    leaves = [_spread(leaf, batch, full) for leaf in leaves]
    if scale is not None:
        root = jnp.sqrt(jnp.broadcast_to(scale, full))
        leaves = [leaf * _align(root, leaf).astype(leaf.dtype) for leaf in leaves]
    if not leaves:
        return jnp.zeros((0,))
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def fisher_information(law: dist.Distribution) -> jax.Array:
    """The information of one observation about the parameters, as dense matrices.

    For small problems and for looking; inference uses `whitened_parameters`.

    Parameters
    ----------
    law
        A law with a rule. ``expand``, ``to_event``, ``mask`` and fixed transforms around it are
        looked through.

    Returns
    -------
    jax.Array
        Of shape ``batch_shape + (k, k)`` for k parameters of an element of the law inside, in the
        order of ``jax.tree.leaves(parameters)``: by name.

    Raises
    ------
    ValueError
        When the law has no rule.

    Notes
    -----
    **Fails when** an element has many parameters: the matrix is formed.

    Examples
    --------
    >>> import numpyro.distributions as dist
    >>> from numpyro_genprior.infer.fisher import fisher_information
    >>> fisher_information(dist.Laplace(0.0, 0.5))
    Array([[4., 0.],
           [0., 4.]], dtype=float32)
    """
    core = unwrap(law)
    rule = find_rule(core)
    if rule is None and isinstance(core, dist.TransformedDistribution):
        return fisher_information(core.base_dist)
    rule = _ruled(rule, core, "This law")
    batch = tuple(core.batch_shape)
    leaves, structure = jax.tree.flatten(rule.parameters(core))
    sizes = [math.prod(leaf.shape[len(batch) :]) for leaf in leaves]
    if not sum(sizes):
        return jnp.zeros((*batch, 0, 0))

    def column(unit: jax.Array) -> jax.Array:
        tangents, start = [], 0
        for leaf, size in zip(leaves, sizes, strict=True):
            one = unit[start : start + size].reshape(leaf.shape[len(batch) :])
            tangents.append(jnp.broadcast_to(one, leaf.shape).astype(leaf.dtype))
            start += size
        rows = jax.tree.leaves(rule.whiten(core, jax.tree.unflatten(structure, tangents)))
        return jnp.concatenate([row.reshape(*batch, -1) for row in rows], -1)

    root = jax.vmap(column)(jnp.eye(sum(sizes)))
    return jnp.einsum("i...r,j...r->...ij", root, root)


def _leaves(at: Any, law: Any, where: str) -> list[jax.Array]:
    """Whitened arrays, each with the batch shape of `law` leading."""
    if type(at) is not type(law):
        raise ValueError(
            message(
                "whitened_parameters needs two laws of one structure",
                expected=type(at).__name__,
                got=type(law).__name__,
                remedy="build both with the same function",
            )
        )
    if isinstance(law, dist.Independent):
        return _leaves(at.base_dist, law.base_dist, where)
    if isinstance(law, dist.ExpandedDistribution):
        leaves = _leaves(at.base_dist, law.base_dist, where)
        return [_spread(x, law.base_dist.batch_shape, law.batch_shape) for x in leaves]
    if isinstance(law, dist.MaskedDistribution):
        leaves = _leaves(at.base_dist, law.base_dist, where)
        mask = jnp.broadcast_to(jnp.asarray(law._mask), law.batch_shape)
        return [jnp.where(_align(mask, x), x, 0) for x in leaves]
    rule = find_rule(law)
    if rule is None and isinstance(law, dist.TransformedDistribution):
        leaves = _leaves(at.base_dist, law.base_dist, where)
        return [known(x, law.transforms, _moving_transform(law, where)) for x in leaves]
    rule = _ruled(rule, law, where)
    # The whitening is that of one point; only the parameters that it is applied to move.
    at = jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, at)
    leaves = jax.tree.leaves(rule.whiten(at, rule.parameters(law)))
    batch = tuple(law.batch_shape)
    for leaf in leaves:
        if leaf.shape[: len(batch)] != batch:
            raise ValueError(
                message(
                    f"The Fisher rule of {type(law).__name__} gives an array of the wrong shape",
                    expected=f"the batch shape {batch} leading",
                    got=leaf.shape,
                    remedy="broadcast in parameters= and whiten= of register_fisher",
                )
            )
    return leaves


def _spread(leaf: jax.Array, batch: tuple[int, ...], full: tuple[int, ...]) -> jax.Array:
    """Repeat an array with `batch` leading for each element of `full`."""
    if batch == full:
        return leaf
    lead = jnp.reshape(leaf, (1,) * (len(full) - len(batch)) + leaf.shape)
    return jnp.broadcast_to(lead, full + leaf.shape[len(batch) :])


def _align(weight: jax.Array, leaf: jax.Array) -> jax.Array:
    return weight.reshape(weight.shape + (1,) * (leaf.ndim - weight.ndim))


def _ruled(rule: FisherRule | str | None, law: Any, where: str) -> FisherRule:
    if isinstance(rule, FisherRule):
        return rule
    name = type(law).__name__
    if isinstance(rule, str):
        raise ValueError(f"{where}, {name}, has no Fisher information: {rule}")
    raise ValueError(
        message(
            f"{where}, {name}, has no rule for its Fisher information",
            expected="one of the laws listed in numpyro_genprior.infer.fisher",
            remedy="observe with one of them, or add a rule: ngp.infer.register_fisher("
            f"{name}, parameters=lambda law: ..., whiten=lambda law, tangent: ...)",
        )
    )


def _moving_transform(law: Any, where: str) -> str:
    transforms = ", ".join(type(t).__name__ for t in law.transforms)
    return message(
        f"{where}, {type(law).__name__} by {transforms}: its transform depends on latent variables",
        expected="a fixed transform, so that the information is that of the base law",
        remedy="move location and scale into the base law, e.g. dist.Normal(loc, scale) for an "
        "AffineTransform of a standard normal, or add a rule with ngp.infer.register_fisher",
    )
