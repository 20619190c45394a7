"""FlowJAX laws and bijections."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import paramax
from flowjax import distributions as fjd
from flowjax.bijections import AbstractBijection, Identity, NumericalInverse
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from numpyro_genprior.flows.adapter import Adapter
from numpyro_genprior.flows.support import image_of_support
from numpyro_genprior.networks.frozen import Frozen


def _thawed(tree: Any) -> Any:
    """Unwrap parameters, without cutting gradients.

    FlowJAX's ``NonTrainable`` would cut them; here it is only a mark for `ngp.param`, so that
    derivatives with respect to every weight are right.
    """

    def is_mark(node: Any) -> bool:
        return isinstance(node, paramax.NonTrainable)

    while any(map(is_mark, jax.tree.leaves(tree, is_leaf=is_mark))):
        tree = jax.tree.map(lambda n: n.tree if is_mark(n) else n, tree, is_leaf=is_mark)
    return paramax.unwrap(tree)


def _parts(flow: Any) -> tuple[Any, Any]:
    """Base law (None for a bare bijection) and bijection."""
    if isinstance(flow, fjd.AbstractTransformed):
        merged = flow.merge_transforms()
        return merged.base_dist, merged.bijection
    if isinstance(flow, fjd.AbstractDistribution):
        return flow, Identity(flow.shape)
    return None, flow


class _Given(AbstractBijection):
    """A bijection with its condition inside."""

    bijection: AbstractBijection
    condition: jax.Array
    shape: tuple[int, ...]
    cond_shape: None = None

    def transform_and_log_det(self, x: jax.Array, condition: Any = None) -> Any:
        return self.bijection.transform_and_log_det(x, self.condition)

    def inverse_and_log_det(self, y: jax.Array, condition: Any = None) -> Any:
        return self.bijection.inverse_and_log_det(y, self.condition)


class _NumericalInverse(AbstractBijection):
    """FlowJAX's ``NumericalInverse``, whose derivatives reach the condition.

    FlowJAX's own has derivatives with respect to the bijection and the event alone, and raises
    when the condition has a tangent. As a part of the bijection it is differentiated like a weight.
    """

    flow: NumericalInverse
    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None

    def transform_and_log_det(self, x: jax.Array, condition: Any = None) -> Any:
        return self.flow.transform_and_log_det(x, condition)

    def inverse_and_log_det(self, y: jax.Array, condition: Any = None) -> Any:
        if condition is None:
            return self.flow.inverse_and_log_det(y, None)
        given = _Given(bijection=self.flow.bijection, condition=condition, shape=self.shape)
        inverter: Any = self.flow.inverter
        x = inverter(given, y, condition=None)
        return x, -given.transform_and_log_det(x)[1]


def _bijection(flow: Any) -> Any:
    """The bijection of a flow, ready to be called."""

    def is_numerical(node: Any) -> bool:
        return isinstance(node, NumericalInverse)

    def replaced(node: Any) -> Any:
        if not is_numerical(node):
            return node
        return _NumericalInverse(flow=node, shape=node.shape, cond_shape=node.cond_shape)

    return jax.tree.map(replaced, _thawed(_parts(flow)[1]), is_leaf=is_numerical)


class FlowJAXDistribution(Distribution):
    """An untransformed FlowJAX distribution as a NumPyro one: the base of a flow.

    Notes
    -----
    **Density** exact, FlowJAX's own.

    **Fails when** the law needs a condition of its own.
    """

    arg_constraints = {}
    pytree_data_fields = ("_law",)

    def __init__(self, law: Any) -> None:
        if law.cond_shape is not None:
            raise ValueError(
                f"The base distribution {type(law).__name__} of the flow takes a condition itself. "
                "Move the condition into the bijection."
            )
        self._law = Frozen(law)
        super().__init__((), law.shape)

    @property
    def has_rsample(self) -> bool:
        return True

    @property
    def support(self) -> constraints.Constraint:
        base = _SUPPORTS.get(type(self._law.net), constraints.real)
        return constraints.independent(base, self.event_dim) if self.event_dim else base

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        if key is None:
            raise ValueError("A random key is needed. Pass jax.random.key(0), or seed the model.")
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # NumPyro hands on raw keys, too
            key = jax.random.wrap_key_data(key)
        return _thawed(self._law.net).sample(key, sample_shape)

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: list | None = None) -> jax.Array:
        value = jnp.asarray(value)
        return _thawed(self._law.promoted(value)).log_prob(value)


_SUPPORTS: dict[type, constraints.Constraint] = {
    fjd._StandardUniform: constraints.unit_interval,
    fjd.Beta: constraints.unit_interval,
    fjd._StandardGamma: constraints.positive,
    fjd._StandardExponential: constraints.positive,
}


class FlowJAX(Adapter):
    name = "flowjax"

    @staticmethod
    def matches(flow: Any) -> bool:
        return isinstance(flow, (fjd.AbstractDistribution, AbstractBijection))

    @staticmethod
    def opened(flow: Any) -> Any:
        return flow  # Equinox modules, whose weights are leaves

    @staticmethod
    def settled(flow: Any) -> Any:
        return flow  # and nothing else

    @staticmethod
    def latent(flow: Any) -> Distribution | tuple[int, ...]:
        base, bijection = _parts(flow)
        if base is None or isinstance(base, fjd.StandardNormal):
            return tuple(bijection.shape)
        return FlowJAXDistribution(base)

    @staticmethod
    def condition_shape(flow: Any) -> tuple[int, ...] | None:
        return _parts(flow)[1].cond_shape

    @staticmethod
    def forward(flow: Any, z: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        return _bijection(flow).transform_and_log_det(z, condition)

    @staticmethod
    def inverse(flow: Any, x: jax.Array, condition: Any) -> tuple[jax.Array, jax.Array]:
        return _bijection(flow).inverse_and_log_det(x, condition)

    @staticmethod
    def support(flow: Any, latent: Distribution) -> constraints.Constraint | None:
        return image_of_support(_thawed(_parts(flow)[1]), latent)
