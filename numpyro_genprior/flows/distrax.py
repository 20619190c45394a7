"""The adapter to Distrax bijectors."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import sum_rightmost

from numpyro_genprior.flows.adapter import FlowAdapter
from numpyro_genprior.flows.support import is_real
from numpyro_genprior.networks.closure import closure_to_pytree

if TYPE_CHECKING:
    from distrax import Bijector  # an optional dependency


@final
class DistraxAdapter(FlowAdapter["Bijector"]):
    """Distrax bijectors. They are unconditional and do not know the shape that they act on."""

    name = "distrax"

    def matches(self, flow: object) -> bool:
        distrax = sys.modules.get("distrax")  # an object of Distrax exists only after its import
        return distrax is not None and isinstance(flow, distrax.Bijector)

    def to_pytree(self, flow: Bijector) -> Bijector:
        return _to_pytree(flow)

    def recompute_cached(self, flow: Bijector) -> Bijector:
        return _recompute_cached(flow)

    def latent(self, flow: Bijector) -> None:
        return None

    def condition_shape(self, flow: Bijector) -> None:
        return None

    def forward_and_log_det(
        self, flow: Bijector, z: Float[Array, "*latent"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*event"], Float[Array, ""]]:
        x, log_det = _recompute_cached(flow).forward_and_log_det(z)
        return x, sum_rightmost(log_det, log_det.ndim)

    def inverse_and_log_det(
        self, flow: Bijector, x: Float[Array, "*event"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*latent"], Float[Array, ""]]:
        z, log_det = _recompute_cached(flow).inverse_and_log_det(x)
        return z, sum_rightmost(log_det, log_det.ndim)

    def support(self, flow: Bijector, latent: Distribution) -> constraints.Constraint | None:
        return constraints.real if is_real(latent.support) and _maps_reals_to_reals(flow) else None


def _to_pytree(node: PyTree) -> PyTree:
    """Replace functions (conditioners), which Distrax keeps among its static data, by pytrees.

    The functions of a ``Lambda`` stay as they are: its forward and inverse close over the same
    arrays, which as separate leaves could be trained to different values.
    """
    if not _is_bijector(node):
        return closure_to_pytree(node)
    if isinstance(node, sys.modules["distrax"].Lambda):
        return node
    bijector = copy.copy(node)
    vars(bijector).update(jax.tree.map(_to_pytree, vars(node), is_leaf=_is_bijector))
    return bijector


def _recompute_cached(node: PyTree) -> PyTree:
    """Rebuild the bijectors that cache results (or methods bound to them) beside their weights."""
    if not _is_bijector(node):
        return node
    import distrax

    bijector = copy.copy(node)
    vars(bijector).update(jax.tree.map(_recompute_cached, vars(node), is_leaf=_is_bijector))
    if type(node) is distrax.ScalarAffine and not isinstance(bijector.log_scale, float):
        scale = jnp.sign(bijector.scale) * jnp.exp(bijector.log_scale)
        return distrax.ScalarAffine(bijector.shift, scale)
    if type(node) is distrax.DiagLinear:
        return distrax.DiagLinear(bijector.diag)
    if type(node) is distrax.DiagPlusLowRankLinear:
        factors = bijector.u_matrix, bijector.v_matrix
        return distrax.DiagPlusLowRankLinear(bijector.diag, *factors)
    if type(node) is distrax.TriangularLinear:
        return distrax.TriangularLinear(bijector.matrix, bijector.is_lower)
    if type(node) is distrax.UnconstrainedAffine:
        return distrax.UnconstrainedAffine(bijector.matrix, bijector.bias)
    return bijector


def _is_bijector(node: object) -> bool:
    return isinstance(node, sys.modules["distrax"].Bijector)


def _maps_reals_to_reals(flow: Bijector) -> bool:
    """Whether no layer of the flow is known to map the real line to a part of it."""
    import distrax

    if isinstance(flow, distrax.Chain):
        return all(map(_maps_reals_to_reals, flow.bijectors))
    if isinstance(flow, (distrax.Block, distrax.Inverse)):
        return _maps_reals_to_reals(flow.bijector if hasattr(flow, "bijector") else flow._bijector)
    bounded = (distrax.Sigmoid, distrax.Tanh, distrax.GumbelCDF, distrax.Lambda)
    return not isinstance(flow, bounded)
