"""NumPyro transforms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.transforms import (
    ComposeTransform,
    LowerCholeskyAffine,
    Transform,
    _InverseTransform,
)
from numpyro.distributions.util import sum_rightmost

from numpyro_genprior.flows.adapter import Adapter
from numpyro_genprior.flows.numpyro_pytree import opened_transform
from numpyro_genprior.flows.support import is_real


class NumPyro(Adapter):
    name = "numpyro"

    @staticmethod
    def matches(flow: Any) -> bool:
        return isinstance(flow, Transform)

    @staticmethod
    def opened(flow: Any) -> Any:
        return opened_transform(flow)

    @staticmethod
    def settled(flow: Any) -> Any:
        return _settled(flow)

    @staticmethod
    def latent(flow: Any) -> None:
        return None

    @staticmethod
    def condition_shape(flow: Any) -> None:
        return None

    @staticmethod
    def forward(flow: Any, z: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        x, log_det = _forward(_settled(flow), z)
        return x, sum_rightmost(log_det, log_det.ndim)

    @staticmethod
    def inverse(flow: Any, x: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        z, log_det = _inverse(_settled(flow), x)
        return z, sum_rightmost(log_det, log_det.ndim)

    @staticmethod
    def support(flow: Any, latent: Distribution) -> constraints.Constraint | None:
        support: Any = latent.support
        for part in _parts(flow):
            if is_real(part.domain) and not is_real(support):
                return None  # declared on the whole line, given a part of it: image unknown
            support = part.codomain
        return support


def _settled(flow: Any) -> Any:
    """Triangular factors stay triangular: NumPyro reads the determinant off their diagonals."""

    def is_affine(node: Any) -> bool:
        return isinstance(node, LowerCholeskyAffine)

    return jax.tree.map(
        lambda n: LowerCholeskyAffine(n.loc, jnp.tril(n.scale_tril)) if is_affine(n) else n,
        flow,
        is_leaf=is_affine,
    )


def _parts(flow: Any) -> list[Any]:
    if not isinstance(flow, ComposeTransform):
        return [flow]
    return [inner for part in flow.parts for inner in _parts(part)]


def _forward(flow: Any, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    if isinstance(flow, ComposeTransform):
        return _through(flow.parts, z, _forward)
    if isinstance(flow, _InverseTransform):
        return _inverse(flow._inv, z)
    x, intermediates = flow.call_with_intermediates(z)
    return x, flow.log_abs_det_jacobian(z, x, intermediates)


def _inverse(flow: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """T⁻¹(x) and its log determinant; one pass wherever the transform allows it."""
    if isinstance(flow, ComposeTransform):
        return _through(reversed(flow.parts), x, _inverse)
    if isinstance(flow, _InverseTransform):
        return _forward(flow._inv, x)
    z = flow._inverse(x)
    return z, -flow.log_abs_det_jacobian(z, x)


def _through(parts: Any, value: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
    total = jnp.zeros((), value.dtype)
    for part in parts:
        value, log_det = step(part, value)
        total = total + sum_rightmost(log_det, log_det.ndim)
    return value, total
