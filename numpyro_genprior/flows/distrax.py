"""Distrax bijectors."""

from __future__ import annotations

import copy
import sys
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import sum_rightmost

from numpyro_genprior.flows.adapter import Adapter
from numpyro_genprior.flows.support import is_real
from numpyro_genprior.networks.closure import open_closure


class Distrax(Adapter):
    name = "distrax"

    @staticmethod
    def matches(flow: Any) -> bool:
        distrax = sys.modules.get("distrax")  # whoever holds a bijector has imported it
        return distrax is not None and isinstance(flow, distrax.Bijector)

    @staticmethod
    def opened(flow: Any) -> Any:
        return _opened(flow)

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
        x, log_det = _settled(flow).forward_and_log_det(z)
        return x, sum_rightmost(log_det, log_det.ndim)

    @staticmethod
    def inverse(flow: Any, x: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        z, log_det = _settled(flow).inverse_and_log_det(x)
        return z, sum_rightmost(log_det, log_det.ndim)

    @staticmethod
    def support(flow: Any, latent: Distribution) -> constraints.Constraint | None:
        return constraints.real if is_real(latent.support) and _keeps_real(flow) else None


def _opened(node: Any) -> Any:
    """Replace functions (conditioners), which Distrax keeps among its static data, by pytrees.

    Not those of a ``Lambda``: its directions close over the same arrays, and as leaves of their
    own these could be trained apart. They stay constants.
    """
    if not _is_bijector(node):
        return open_closure(node)
    if isinstance(node, sys.modules["distrax"].Lambda):
        return node
    bijector = copy.copy(node)
    vars(bijector).update(jax.tree.map(_opened, vars(node), is_leaf=_is_bijector))
    return bijector


def _settled(node: Any) -> Any:
    """Build bijectors anew that keep results beside their weights (or methods bound to them)."""
    if not _is_bijector(node):
        return node
    import distrax

    bijector = copy.copy(node)
    vars(bijector).update(jax.tree.map(_settled, vars(node), is_leaf=_is_bijector))
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


def _is_bijector(node: Any) -> bool:
    return isinstance(node, sys.modules["distrax"].Bijector)


def _keeps_real(flow: Any) -> bool:
    """Whether no layer of the flow is known to map the real line to a part of it."""
    import distrax

    if isinstance(flow, distrax.Chain):
        return all(map(_keeps_real, flow.bijectors))
    if isinstance(flow, (distrax.Block, distrax.Inverse)):
        return _keeps_real(flow.bijector if hasattr(flow, "bijector") else flow._bijector)
    bounded = (distrax.Sigmoid, distrax.Tanh, distrax.GumbelCDF, distrax.Lambda)
    return not isinstance(flow, bounded)
