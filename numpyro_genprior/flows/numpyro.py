"""The adapter to NumPyro transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.transforms import (
    ComposeTransform,
    LowerCholeskyAffine,
    Transform,
    _InverseTransform,
)
from numpyro.distributions.util import sum_rightmost

from numpyro_genprior.flows.adapter import FlowAdapter
from numpyro_genprior.flows.numpyro_pytree import transform_to_pytree
from numpyro_genprior.flows.support import is_real


@final
class NumPyroAdapter(FlowAdapter[Transform]):
    """NumPyro transforms. They are unconditional and do not know the shape that they act on."""

    name = "numpyro"

    def matches(self, flow: object) -> bool:
        return isinstance(flow, Transform)

    def to_pytree(self, flow: Transform) -> Transform:
        return transform_to_pytree(flow)

    def recompute_cached(self, flow: Transform) -> Transform:
        return _keep_triangular(flow)

    def latent(self, flow: Transform) -> None:
        return None

    def condition_shape(self, flow: Transform) -> None:
        return None

    def forward_and_log_det(
        self, flow: Transform, z: Float[Array, "*latent"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*event"], Float[Array, ""]]:
        x, log_det = _forward(_keep_triangular(flow), z)
        return x, sum_rightmost(log_det, log_det.ndim)

    def inverse_and_log_det(
        self, flow: Transform, x: Float[Array, "*event"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*latent"], Float[Array, ""]]:
        z, log_det = _inverse(_keep_triangular(flow), x)
        return z, sum_rightmost(log_det, log_det.ndim)

    def support(self, flow: Transform, latent: Distribution) -> constraints.Constraint | None:
        support = latent.support
        for part in _parts(flow):
            if is_real(part.domain) and not is_real(support):
                return None  # its declared codomain is the image of the whole line, not of a part
            support = part.codomain
        return support


def _keep_triangular(flow: Transform) -> Transform:
    """Zero the upper triangle of each ``scale_tril``, whatever training has put there.

    NumPyro reads the determinant off the diagonal, which is right for triangular factors only.
    """

    def is_affine(node: PyTree) -> bool:
        return isinstance(node, LowerCholeskyAffine)

    return jax.tree.map(
        lambda n: LowerCholeskyAffine(n.loc, jnp.tril(n.scale_tril)) if is_affine(n) else n,
        flow,
        is_leaf=is_affine,
    )


def _parts(flow: Transform) -> list[Transform]:
    if not isinstance(flow, ComposeTransform):
        return [flow]
    return [inner for part in flow.parts for inner in _parts(part)]


def _forward(flow: Transform, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    if isinstance(flow, ComposeTransform):
        return _apply_in_turn(flow.parts, z, _forward)
    if isinstance(flow, _InverseTransform):
        return _inverse(flow._inv, z)
    x, intermediates = flow.call_with_intermediates(z)
    return jnp.asarray(x), jnp.asarray(flow.log_abs_det_jacobian(z, x, intermediates))


def _inverse(flow: Transform, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """T⁻¹(x) and its log determinant, in one pass where the transform allows it."""
    if isinstance(flow, ComposeTransform):
        return _apply_in_turn(reversed(flow.parts), x, _inverse)
    if isinstance(flow, _InverseTransform):
        return _forward(flow._inv, x)
    z = flow._inverse(x)
    return jnp.asarray(z), -jnp.asarray(flow.log_abs_det_jacobian(z, x))


def _apply_in_turn(
    parts: Iterable[Transform],
    value: jax.Array,
    direction: Callable[[Transform, jax.Array], tuple[jax.Array, jax.Array]],
) -> tuple[jax.Array, jax.Array]:
    total = jnp.zeros((), value.dtype)
    for part in parts:
        value, log_det = direction(part, value)
        total = total + sum_rightmost(log_det, log_det.ndim)
    return value, total
