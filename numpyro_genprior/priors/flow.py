"""`FlowPrior`: a normalizing flow with an exact density."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree
from numpyro.distributions import Distribution, TransformedDistribution, constraints
from numpyro.distributions.transforms import ComposeTransform

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.flows import ADAPTERS, FlowAdapter, adapter_of
from numpyro_genprior.flows.support import disagree, is_real
from numpyro_genprior.networks.frozen import Frozen, promote
from numpyro_genprior.priors.latent_distribution import as_latent
from numpyro_genprior.priors.missing_handler import warn_if_latent_is_ignored
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.stored import StoredPrior


class FlowPrior(Prior):
    """The distribution of ``x = T(z)`` for an invertible T: a normalizing flow.

    Parameters
    ----------
    flow
        A FlowJAX distribution or bijection, a Distrax bijector, or a NumPyro transform (or
        ``TransformedDistribution``). Its weights are leaves of the prior.
    latent
        Distribution of z. None: the base distribution of the flow (FlowJAX), or a standard normal.
        Distrax bijectors and NumPyro transforms do not state the shape of z, and need it.
    support
        Where events live; None: as the flow states it, which not every flow does.
    condition
        Array given to a conditional FlowJAX flow, floats or integers; leading dimensions become
        the batch shape. Gradients flow through it.

    Raises
    ------
    TypeError
        If `flow` is not from one of these libraries.
    ValueError
        If a latent, condition or support is missing or does not fit, or weights are NaN.

    Notes
    -----
    **Density** exact: ``log p(x) = log p_z(T⁻¹x) + log|det dT⁻¹/dx|``, inverse and determinant in
    one pass. For a value that this prior drew itself, NumPyro passes the latent back, and the
    inverse is not computed at all.

    Under ``ngp.latent(explicit=True)``, ``x = T(x_latent)``.

    **Fails when** the flow has no inverse (a one-directional flow; only the explicit form then
    works), or the target is a manifold of lower dimension, where the determinant diverges.

    References
    ----------
    Papamakarios et al., Normalizing flows for probabilistic modeling and inference, JMLR 2021.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> from flowjax.distributions import LogNormal
    >>> prior = ngp.FlowPrior(LogNormal(jnp.zeros(3)))
    >>> prior.support
    IndependentConstraint(Positive(lower_bound=0.0), 1)
    >>> prior.log_prob(jnp.ones(3)).shape
    ()
    """

    density = "exact"
    pytree_data_fields = ("_flow",)
    trainable_fields = ("_flow",)
    pytree_aux_fields = ("_library",)

    def __init__(
        self,
        flow: Any,
        *,
        latent: int | tuple[int, ...] | Distribution | None = None,
        support: constraints.Constraint | None = None,
        condition: ArrayLike | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if isinstance(flow, Frozen):
            flow = flow.net
        if isinstance(flow, TransformedDistribution):
            latent = flow.base_dist if latent is None else latent
            flow = ComposeTransform(list(flow.transforms))
        adapter = _adapter(flow)
        flow = adapter.to_pytree(flow)
        self._library = adapter.name
        self._flow = Frozen(flow)
        validation.weights_finite(self._flow, "The flow")
        base = _latent(adapter, flow, latent)
        base = as_latent(base, allow_batch=isinstance(base, Prior))
        condition_shape = adapter.condition_shape(flow)
        _check_condition(condition, condition_shape)
        super().__init__(
            base,
            support=_support(adapter, flow, base, support),
            condition=condition,
            condition_shape=condition_shape,
            validate_args=validate_args,
        )
        if self.event_shape != base.event_shape:
            self._check_shapes()

    def _check_shapes(self) -> None:
        """Raise ValueError if the flow broadcasts its latent, since it is then not a bijection."""
        try:
            z = jax.eval_shape(self._inverse, *self._abstract_event())
        except NotImplementedError:
            return
        if z.shape != self._latent.event_shape:
            raise ValueError(
                message(
                    "The latent does not fit the flow, which would broadcast it",
                    expected=f"event shape {z.shape}",
                    got=self._latent.event_shape,
                    remedy="pass latent= of the size on which the flow acts",
                )
            )

    @property
    def flow(self) -> Any:
        """The flow that was given, with its current weights.

        In flows of Distrax and NumPyro, functions that hold weights (conditioners, autoregressive
        networks) are replaced by pytrees that are called in the same way.
        """
        return self._adapter.recompute_cached(self._flow.net)

    @property
    def _adapter(self) -> FlowAdapter[Any]:
        return ADAPTERS[self._library]

    def _forward(self, z: jax.Array, condition: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        dtype = self._flow.dtype(z)
        flow = self._flow.promoted(z)
        try:
            return self._adapter.forward_and_log_det(flow, promote(z, dtype), condition)
        except NotImplementedError as error:
            raise NotImplementedError(
                message(
                    f"The flow {type(flow).__name__} has no forward direction "
                    f"({str(error) or 'one-directional'})",
                    expected="a flow that maps its latent to an event",
                    remedy="build it the other way round (FlowJAX: invert=False), or of layers "
                    "that invert (planar_flow: negative_slope=0.1)",
                )
            ) from error

    def _decode(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        return self._forward(z, condition)[0]

    def _inverse(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        return self._inverse_and_log_det(x, condition)[0]

    def _inverse_and_log_det(
        self, x: jax.Array, condition: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        dtype = self._flow.dtype(x)
        flow = self._flow.promoted(x)
        try:
            return self._adapter.inverse_and_log_det(flow, promote(x, dtype), condition)
        except NotImplementedError as error:
            raise NotImplementedError(
                message(
                    f"The flow {type(flow).__name__} has no inverse "
                    f"({str(error) or 'one-directional'})",
                    remedy="use it under @ngp.latent(explicit=True), where only the forward "
                    "direction is needed",
                )
            ) from error

    def _log_prob(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        z, log_det = self._inverse_and_log_det(x, condition)
        return jnp.asarray(self._latent.log_prob(z)) + log_det

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[jax.Array]]:
        warn_if_latent_is_ignored()
        key = validation.random_key(key)
        z = self._sample_latent(key, sample_shape)
        ndim = self._latent.event_dim
        x, log_det = self._over_batch(self._forward, [(z, ndim)], [self.event_dim, 0])
        return x, [z, log_det]

    def _log_prob_of_draw(self, *intermediates: jax.Array) -> jax.Array:
        z, log_det = intermediates
        return jnp.asarray(self._latent.log_prob(z)) - log_det

    @classmethod
    def _from_file(cls, stored: StoredPrior) -> Self:
        return cls(
            stored.network("flow"),
            latent=stored.latent,
            support=stored.support,
            condition=stored.condition,
            validate_args=stored.validate_args,
        )


def _adapter(flow: object) -> FlowAdapter[Any]:
    adapter = adapter_of(flow)
    if adapter is None:
        raise TypeError(
            message(
                "FlowPrior does not support this flow",
                expected="a FlowJAX distribution or bijection, a Distrax bijector, or a NumPyro "
                "transform",
                got=f"{type(flow).__module__}.{type(flow).__name__}",
                remedy="wrap it as one of these, or pass a decoder to GANPrior or VAEPrior",
            )
        )
    return adapter


def _latent(
    adapter: FlowAdapter[Any], flow: PyTree, latent: int | tuple[int, ...] | Distribution | None
) -> int | tuple[int, ...] | Distribution:
    flow_latent = adapter.latent(flow)
    if latent is None:
        if flow_latent is None:
            raise ValueError(
                message(
                    f"A {adapter.name} bijection does not state the shape on which it acts",
                    expected="latent=",
                    got="none",
                    remedy="pass latent=d (a standard normal of size d) or a distribution",
                )
            )
        return flow_latent
    chosen = as_latent(latent, allow_batch=isinstance(latent, Prior))
    shape = getattr(flow_latent, "event_shape", flow_latent)
    if shape is not None and chosen.event_shape != shape:
        raise ValueError(
            message(
                "The latent does not fit the flow",
                expected=f"event shape {shape}",
                got=chosen.event_shape,
                remedy="leave out latent= to use the base distribution of the flow",
            )
        )
    return chosen


def _check_condition(condition: ArrayLike | None, shape: tuple[int, ...] | None) -> None:
    if shape is not None and condition is None:
        raise ValueError(
            message(
                "The flow is conditional",
                expected=f"condition= of shape (..., {', '.join(map(str, shape))})",
                got="none",
                remedy="pass condition=array; a model replaces it with prior.given(c)",
            )
        )
    if shape is None and condition is not None:
        raise ValueError(
            message(
                "The flow is not conditional",
                got=f"a condition of shape {np.shape(condition)}",
                remedy="leave out condition=, or train a conditional flow",
            )
        )


def _support(
    adapter: FlowAdapter[Any],
    flow: PyTree,
    latent: Distribution,
    declared: constraints.Constraint | None,
) -> constraints.Constraint:
    found = adapter.support(flow, latent)
    if declared is None:
        if found is None:
            raise ValueError(
                message(
                    "FlowPrior cannot infer where the events of this flow live",
                    expected="support=",
                    got="none",
                    remedy="pass e.g. support=constraints.unit_interval, or constraints.real",
                )
            )
        return found
    # A user's transform or bijector may wrongly declare the real line, which is the default.
    known = found is not None and (adapter.name == "flowjax" or not is_real(found))
    if known and isinstance(declared, constraints.Constraint) and disagree(found, declared):
        raise ValueError(
            message(
                "The declared support is not where the events of this flow live",
                expected=str(found),
                got=declared,
                remedy="leave out support=, or end the flow with a map onto the support "
                "(Exp, SoftPlus, Sigmoid)",
            )
        )
    return declared
