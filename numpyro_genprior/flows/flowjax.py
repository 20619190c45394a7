"""The adapter to FlowJAX distributions and bijections."""

from __future__ import annotations

from typing import TypeVar, final

import jax
import jax.numpy as jnp
import paramax
from flowjax import distributions as fjd
from flowjax.bijections import AbstractBijection, Identity, NumericalInverse
from flowjax.distributions import AbstractDistribution
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from numpyro_genprior.flows.adapter import FlowAdapter
from numpyro_genprior.flows.support import image_of_support
from numpyro_genprior.networks.frozen import Frozen

FlowJAX = AbstractDistribution | AbstractBijection
Tree = TypeVar("Tree")


def _unwrap(tree: Tree) -> Tree:
    """Replace Paramax wrappers by their values, without cutting gradients.

    Paramax would cut the gradient at a ``NonTrainable``. Here it only tells `ngp.param` what not
    to train, so that derivatives with respect to every weight are right.
    """

    def is_non_trainable(node: PyTree) -> bool:
        return isinstance(node, paramax.NonTrainable)

    def inner(node: PyTree) -> PyTree:
        return node.tree if isinstance(node, paramax.NonTrainable) else node

    while any(map(is_non_trainable, jax.tree.leaves(tree, is_leaf=is_non_trainable))):
        tree = jax.tree.map(inner, tree, is_leaf=is_non_trainable)
    return paramax.unwrap(tree)


def _base_and_bijection(flow: FlowJAX) -> tuple[AbstractDistribution | None, AbstractBijection]:
    """Base distribution (None for a bijection alone) and bijection."""
    if isinstance(flow, fjd.AbstractTransformed):
        merged = flow.merge_transforms()
        return merged.base_dist, merged.bijection
    if isinstance(flow, AbstractDistribution):
        return flow, Identity(flow.shape)
    return None, flow


class _Conditioned(AbstractBijection):
    """A bijection with its condition inside."""

    bijection: AbstractBijection
    condition: ArrayLike
    shape: tuple[int, ...]
    cond_shape: None = None

    def transform_and_log_det(
        self, x: ArrayLike, condition: ArrayLike | None = None
    ) -> tuple[jax.Array, jax.Array]:
        return self.bijection.transform_and_log_det(x, self.condition)

    def inverse_and_log_det(
        self, y: ArrayLike, condition: ArrayLike | None = None
    ) -> tuple[jax.Array, jax.Array]:
        return self.bijection.inverse_and_log_det(y, self.condition)


class _NumericalInverse(AbstractBijection):
    """FlowJAX's ``NumericalInverse``, whose derivatives reach the condition.

    FlowJAX's class has derivatives with respect to the bijection and the event only, and raises an
    error if the condition has a tangent. As a part of the bijection, the condition is
    differentiated as a weight is.
    """

    wrapped: NumericalInverse
    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None

    def transform_and_log_det(
        self, x: ArrayLike, condition: ArrayLike | None = None
    ) -> tuple[jax.Array, jax.Array]:
        return self.wrapped.transform_and_log_det(x, condition)

    def inverse_and_log_det(
        self, y: ArrayLike, condition: ArrayLike | None = None
    ) -> tuple[jax.Array, jax.Array]:
        if condition is None:
            return self.wrapped.inverse_and_log_det(y, None)
        bijection = _Conditioned(
            bijection=self.wrapped.bijection, condition=condition, shape=self.shape
        )
        x = self.wrapped.inverter(bijection, y, condition=None)  # pyright: ignore
        return x, -bijection.transform_and_log_det(x)[1]


def _callable_bijection(flow: FlowJAX) -> AbstractBijection:
    """The bijection of a flow, unwrapped, with numerical inverses that differentiate."""

    def is_numerical(node: PyTree) -> bool:
        return isinstance(node, NumericalInverse)

    def replace(node: PyTree) -> PyTree:
        if not isinstance(node, NumericalInverse):
            return node
        return _NumericalInverse(wrapped=node, shape=node.shape, cond_shape=node.cond_shape)

    bijection = _unwrap(_base_and_bijection(flow)[1])
    return jax.tree.map(replace, bijection, is_leaf=is_numerical)


class FlowJAXDistribution(Distribution):
    """An untransformed FlowJAX distribution as a NumPyro distribution: the base of a flow.

    Raises
    ------
    ValueError
        If the distribution takes a condition.

    Notes
    -----
    **Density** exact, FlowJAX's own.

    **Fails when** the support is neither the reals nor one that this module lists: it is then
    declared to be the reals.
    """

    arg_constraints = {}
    pytree_data_fields = ("_distribution",)

    def __init__(self, distribution: AbstractDistribution) -> None:
        if distribution.cond_shape is not None:
            raise ValueError(
                f"The base distribution {type(distribution).__name__} of the flow has a "
                "condition itself. Move the condition into the bijection."
            )
        self._distribution = Frozen(distribution)
        super().__init__((), distribution.shape)

    @property
    def has_rsample(self) -> bool:
        return True

    @property
    def support(self) -> constraints.Constraint:
        base = _SUPPORTS.get(type(self._distribution.net), constraints.real)
        return constraints.independent(base, self.event_dim) if self.event_dim else base

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        if key is None:
            raise ValueError("A random key is needed. Pass jax.random.key(0), or seed the model.")
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # NumPyro also passes raw keys
            key = jax.random.wrap_key_data(key)
        return _unwrap(self._distribution.net).sample(key, sample_shape)

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: list[jax.Array] | None = None) -> jax.Array:
        value = jnp.asarray(value)
        return _unwrap(self._distribution.promoted(value)).log_prob(value)


_SUPPORTS: dict[type, constraints.Constraint] = {
    fjd._StandardUniform: constraints.unit_interval,
    fjd.Beta: constraints.unit_interval,
    fjd._StandardGamma: constraints.positive,
    fjd._StandardExponential: constraints.positive,
}


@final
class FlowJAXAdapter(FlowAdapter[AbstractDistribution | AbstractBijection]):
    """FlowJAX distributions and bijections: Equinox modules, whose weights are leaves already."""

    name = "flowjax"

    def matches(self, flow: object) -> bool:
        return isinstance(flow, (AbstractDistribution, AbstractBijection))

    def to_pytree(self, flow: FlowJAX) -> FlowJAX:
        return flow

    def recompute_cached(self, flow: FlowJAX) -> FlowJAX:
        return flow  # nothing is cached

    def latent(self, flow: FlowJAX) -> Distribution | tuple[int, ...]:
        base, bijection = _base_and_bijection(flow)
        if base is None or isinstance(base, fjd.StandardNormal):
            return tuple(bijection.shape)
        return FlowJAXDistribution(base)

    def condition_shape(self, flow: FlowJAX) -> tuple[int, ...] | None:
        return _base_and_bijection(flow)[1].cond_shape

    def forward_and_log_det(
        self, flow: FlowJAX, z: Float[Array, "*latent"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*event"], Float[Array, ""]]:
        return _callable_bijection(flow).transform_and_log_det(z, condition)

    def inverse_and_log_det(
        self, flow: FlowJAX, x: Float[Array, "*event"], condition: jax.Array | None
    ) -> tuple[Float[Array, "*latent"], Float[Array, ""]]:
        return _callable_bijection(flow).inverse_and_log_det(x, condition)

    def support(self, flow: FlowJAX, latent: Distribution) -> constraints.Constraint | None:
        return image_of_support(_unwrap(_base_and_bijection(flow)[1]), latent)
