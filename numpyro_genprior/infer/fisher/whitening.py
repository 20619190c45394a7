"""`whitened_parameters`: parameters of a distribution, whitened by their Fisher information."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import require_constant
from numpyro_genprior.infer.fisher.registry import FisherRule, find_rule
from numpyro_genprior.sites.wrappers import unwrap

WRAPPERS = (
    dist.Independent,
    dist.ExpandedDistribution,
    dist.MaskedDistribution,
    dist.TransformedDistribution,
)


def whitened_parameters(
    at: dist.Distribution,
    distribution: dist.Distribution,
    *,
    scale: ArrayLike | None = None,
    value: ArrayLike | None = None,
    name: str | None = None,
) -> jax.Array:
    """``F(at)^(1/2) θ(distribution)``, flat: its Jacobian is the square root of the information.

    With ``f(x) = whitened_parameters(p(x₀), p(x))`` for a function p from x to distributions, and J
    the Jacobian of their parameters, the Jacobian of f at x₀ is ``F^(1/2) J``. So ``JᵀFJ v`` costs
    one `jax.jvp` (or the linear function of `jax.linearize`) and one transposed product of one
    function. The value of f has no meaning by itself.

    Parameters
    ----------
    at
        The distribution at which the information is taken; treated as constant. May be
        `distribution` itself.
    distribution
        A distribution of the same structure, whose parameters are whitened.
    scale
        Factor on the log density, as in a NumPyro site; broadcasts with the batch shape.
    value
        The observed value. Only its shape is used: NumPyro lets a value have more dimensions
        than its distribution, and each of its elements is then an observation.
    name
        Name of the site, for messages.

    Returns
    -------
    jax.Array
        Of shape ``(rows,)``: for each batch element the rows of its root; those of masked elements
        are 0.

    Raises
    ------
    ValueError
        If the distribution has no rule; during differentiation, if parameters that its rule
        treats as constant depend on x.

    Notes
    -----
    **Fails when** a parameter lies on the edge of its range: a Poisson rate of 0, a probability
    of 0 or 1 and a scale of 0 have infinite information, and such an element contributes 0, which
    is the limit for a rate ``exp(η)`` or a probability ``softmax(η)`` that underflows. If the
    parameter can leave the edge, this information is missing. Second derivatives are those with a
    constant `at`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_genprior.infer.fisher import whitened_parameters
    >>> x = jnp.array([1.0, 2.0])
    >>> normal = lambda x: dist.Normal(x, 0.5).to_event(1)
    >>> jax.jacobian(lambda x: whitened_parameters(normal(x), normal(x)))(x)[:2]
    Array([[2., 0.],
           [0., 2.]], dtype=float32)
    """
    subject = "An observed distribution" if name is None else f"The distribution of site '{name}'"
    leaves, batch = _whitened_leaves(at, distribution, subject), tuple(distribution.batch_shape)
    full_batch = batch
    if value is not None:
        outer = jnp.ndim(value) - distribution.event_dim
        full_batch = jnp.broadcast_shapes(full_batch, jnp.shape(value)[: max(outer, 0)])
    if scale is not None:
        # The metric is taken at one point, so its weights must not be differentiated.
        scale = jax.lax.stop_gradient(jnp.asarray(scale))
        full_batch = jnp.broadcast_shapes(full_batch, jnp.shape(scale))
    leaves = [_broadcast_batch(leaf, batch, full_batch) for leaf in leaves]
    if scale is not None:
        root = jnp.sqrt(jnp.broadcast_to(scale, full_batch))
        leaves = [leaf * append_dimensions(root, leaf).astype(leaf.dtype) for leaf in leaves]
    if not leaves:
        return jnp.zeros((0,))
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def fisher_information(distribution: dist.Distribution) -> jax.Array:
    """The information of one observation about the parameters, as dense matrices.

    For small problems and for inspection; inference uses `whitened_parameters`.

    Parameters
    ----------
    distribution
        A distribution with a rule. ``expand``, ``to_event``, ``mask`` and fixed transforms around
        it are ignored.

    Returns
    -------
    jax.Array
        Of shape ``batch_shape + (k, k)`` for the k parameters of a batch element of the
        distribution inside, in the order of ``jax.tree.leaves(parameters)``: by name.

    Raises
    ------
    ValueError
        If the distribution has no rule.

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
    core = unwrap(distribution)
    rule = find_rule(core)
    if rule is None and isinstance(core, dist.TransformedDistribution):
        return fisher_information(core.base_dist)
    rule = _require_rule(rule, core, "This distribution")
    batch = tuple(core.batch_shape)
    leaves, structure = jax.tree.flatten(rule.parameters(core))
    sizes = [math.prod(leaf.shape[len(batch) :]) for leaf in leaves]
    if not sum(sizes):
        return jnp.zeros((*batch, 0, 0))

    def column(unit: jax.Array) -> jax.Array:
        tangents, start = [], 0
        for leaf, size in zip(leaves, sizes, strict=True):
            tangent = unit[start : start + size].reshape(leaf.shape[len(batch) :])
            tangents.append(jnp.broadcast_to(tangent, leaf.shape).astype(leaf.dtype))
            start += size
        rows = jax.tree.leaves(rule.whiten(core, jax.tree.unflatten(structure, tangents)))
        return jnp.concatenate([row.reshape(*batch, -1) for row in rows], -1)

    root = jax.vmap(column)(jnp.eye(sum(sizes)))
    return jnp.einsum("i...r,j...r->...ij", root, root)


def _whitened_leaves(
    at: dist.Distribution, distribution: dist.Distribution, subject: str
) -> list[jax.Array]:
    """Whitened arrays, each with the batch shape of `distribution` leading."""
    if type(at) is not type(distribution):
        raise ValueError(
            message(
                "whitened_parameters needs two distributions of the same structure",
                expected=type(at).__name__,
                got=type(distribution).__name__,
                remedy="build both with the same function",
            )
        )
    rule = find_rule(distribution)
    if rule is None and isinstance(distribution, WRAPPERS):
        return _leaves_of_wrapper(at, distribution, subject)
    rule = _require_rule(rule, distribution, subject)
    # The whitening is that at one point; only the parameters that it is applied to vary.
    at = jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, at)
    leaves = jax.tree.leaves(rule.whiten(at, rule.parameters(distribution)))
    batch = tuple(distribution.batch_shape)
    for leaf in leaves:
        if leaf.shape[: len(batch)] != batch:
            raise ValueError(
                message(
                    f"The Fisher rule of {type(distribution).__name__} returns an array of the "
                    "wrong shape",
                    expected=f"the batch shape {batch} leading",
                    got=leaf.shape,
                    remedy="broadcast in parameters= and whiten= of register_fisher",
                )
            )
    return leaves


def _leaves_of_wrapper(at: Any, wrapper: Any, subject: str) -> list[jax.Array]:
    """Whitened arrays of the distribution inside, for the batch of the wrapper."""
    leaves = _whitened_leaves(at.base_dist, wrapper.base_dist, subject)
    if isinstance(wrapper, dist.ExpandedDistribution):
        return [
            _broadcast_batch(x, wrapper.base_dist.batch_shape, wrapper.batch_shape) for x in leaves
        ]
    if isinstance(wrapper, dist.MaskedDistribution):
        mask = jnp.broadcast_to(jnp.asarray(wrapper._mask), wrapper.batch_shape)
        return [jnp.where(append_dimensions(mask, x), x, 0) for x in leaves]
    if isinstance(wrapper, dist.TransformedDistribution):
        refusal = _transform_refusal(wrapper, subject)
        return [require_constant(x, wrapper.transforms, refusal) for x in leaves]
    return leaves


def _broadcast_batch(
    leaf: jax.Array, batch: tuple[int, ...], full_batch: tuple[int, ...]
) -> jax.Array:
    """Repeat an array with `batch` leading for each element of `full_batch`."""
    if batch == full_batch:
        return leaf
    lead = jnp.reshape(leaf, (1,) * (len(full_batch) - len(batch)) + leaf.shape)
    return jnp.broadcast_to(lead, full_batch + leaf.shape[len(batch) :])


def append_dimensions(weight: jax.Array, array: jax.Array) -> jax.Array:
    """`weight` with trailing dimensions of size 1, up to the number of dimensions of `array`."""
    return weight.reshape(weight.shape + (1,) * (array.ndim - weight.ndim))


def _require_rule(
    rule: FisherRule | str | None, distribution: dist.Distribution, subject: str
) -> FisherRule:
    """The rule, or an error that says why there is none."""
    if isinstance(rule, FisherRule):
        return rule
    name = type(distribution).__name__
    if isinstance(rule, str):
        raise ValueError(f"{subject}, {name}, has no Fisher information: {rule}")
    raise ValueError(
        message(
            f"{subject}, {name}, has no rule for its Fisher information",
            expected="one of the distributions listed in numpyro_genprior.infer.fisher",
            remedy="observe with one of them, or add a rule: ngp.infer.register_fisher("
            f"{name}, parameters=lambda d: ..., whiten=lambda d, tangent: ...)",
        )
    )


def _transform_refusal(transformed: dist.TransformedDistribution, subject: str) -> str:
    transforms = ", ".join(type(t).__name__ for t in transformed.transforms)
    return message(
        f"{subject}, {type(transformed).__name__} by {transforms}: its transform depends on latent "
        "variables",
        expected="a fixed transform, so that the information is that of the base distribution",
        remedy="move location and scale into the base distribution, e.g. dist.Normal(loc, scale) "
        "for an AffineTransform of a standard normal, or add a rule with ngp.infer.register_fisher",
    )
