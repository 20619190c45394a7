"""`Prior`: the base class of all priors, with their shapes, batching, pytrees and checks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import PyTree
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import validate_sample

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.flows.support import is_real
from numpyro_genprior.networks.static import Static
from numpyro_genprior.priors import encoder as encoders
from numpyro_genprior.priors import shape_inference
from numpyro_genprior.priors.condition import Condition
from numpyro_genprior.priors.hooks import PriorHooks
from numpyro_genprior.priors.latent_distribution import as_latent
from numpyro_genprior.priors.missing_handler import warn_if_latent_is_ignored
from numpyro_genprior.priors.vectorise import for_each_condition, over_conditions, vectorise


class Prior(PriorHooks):
    """A generative model as a NumPyro distribution.

    A prior is the distribution of ``x = g(z, c)`` (plus decoder noise, for some) with a latent
    ``z`` and an optional condition ``c``. A family is a subclass in one file: it writes unbatched
    functions of one latent or one event, and sets the class attributes below. This class adds
    shapes, batching over conditions, pytree behaviour and checks.

    Parameters
    ----------
    latent
        The distribution of the latent: an integer for a standard normal of that size, a shape for
        a standard normal array, or a NumPyro distribution without batch dimensions (possibly
        another prior).
    event_shape
        Shape of one event; None: found by `jax.eval_shape`.
    support
        Where the events live. A constraint on single numbers is applied to all entries of the
        event. None: the real numbers.
    condition
        Array given to the generator; leading dimensions beyond those of one condition become the
        batch shape. Integers (labels, up to 2²⁴) are allowed.
    condition_shape
        Shape of one condition; None: the largest trailing shape that the generator accepts.

    Attributes
    ----------
    density
        ``"exact"``, ``"conditional"`` (given the latent) or ``"none"``: whether ``log_prob`` of
        an event exists. A class attribute, as are those that follow.
    no_density
        Why there is none, and what to do, for the message of `log_prob` and `score`.
    no_fisher
        Why an observed event has no Fisher information, and what to do; None if it may have.
    fisher_constants
        Names of the attributes that the Fisher information treats as known. Inference refuses a
        model in which they depend on latent variables.
    trainable_fields, scale_field
        Names of the attributes that `ngp.param` trains, and of the positive one that it trains
        with ``scale=True``.
    families
        All classes of priors by name; each adds itself when it is defined. A file can only name
        one of these.

    Raises
    ------
    ValueError, TypeError
        At construction, if shapes, dtypes or outputs of the network do not fit.
    NotImplementedError
        If `log_prob` or `score` is called and there is no density.

    Notes
    -----
    **Density** as stated by the subclass.

    **Fails when** the subclass draws random numbers or reads shapes of batches in `_decode`: it
    is called on one latent, under `jax.vmap`.

    A subclass writes these hooks, each for one latent or one event; `condition` is one condition
    or None. All but the first are optional.

    ===========================================  ===================================================
    ``_decode(z, condition)``                    the event g(z): `decode`, `sample`, `ngp.latent`
    ``_log_prob(x, condition)``                  the log density, if it is exact
    ``_event_loc_scale(z, condition)``           mean and standard deviation of the event given its
                                                 latent, if the density is conditional
    ``_inverse(x, condition)``                   a latent of the event: `inverse`, from which
                                                 inference computes coordinates of events
    ``encoder``                                  a property: the network ``x -> (loc, scale)`` that
                                                 proposes latents, a start for inference
    ``event_scale``                              a property: the decoder noise, if it is constant
    ``_fisher_parameters(condition)``,           the parameters θ of an observed event and
    ``_fisher_root(tangent, condition)``         ``F(θ)^(1/2) dθ``: Fisher information, MGVI
    ``_from_file(stored)``                       a class method that builds the prior from the parts
                                                 in a file (`StoredPrior`): `ngp.load`
    ===========================================  ===================================================

    Arrays and networks are listed in ``pytree_data_fields``, hashable static values in
    ``pytree_aux_fields``; `ngp.save` keeps both.
    """

    families: ClassVar[dict[str, type[Prior]]] = {}
    arg_constraints = {}
    pytree_data_fields = ("_latent", "_condition")
    pytree_aux_fields = ("_declared",)

    _latent: Distribution
    _condition: Condition | None
    _declared: Static

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = Prior.families.get(cls.__name__)
        if known is None or not _is_built_in(known) or _is_built_in(cls):
            Prior.families[cls.__name__] = cls

    def __init__(
        self,
        latent: int | tuple[int, ...] | Distribution,
        *,
        event_shape: tuple[int, ...] | None = None,
        support: constraints.Constraint | None = None,
        condition: ArrayLike | None = None,
        condition_shape: tuple[int, ...] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._latent = as_latent(latent, allow_batch=isinstance(latent, Prior))
        self._condition = None
        z = jax.ShapeDtypeStruct(self._latent.event_shape, jnp.result_type(float))
        if condition is None:
            decoded = shape_inference.abstract_event(self._decode, z)
        else:
            self._condition, decoded = shape_inference.fit_condition(
                condition, condition_shape, self._decode, z
            )
        shape = validation.event_shape(decoded, event_shape)
        batch_shape = () if self._condition is None else self._condition.batch_shape
        batch_shape = jnp.broadcast_shapes(batch_shape, self._latent.batch_shape)
        self._declared = Static((validation.event_support(support, shape), decoded.dtype))
        super().__init__(batch_shape, shape, validate_args=validate_args)

    # ---- what a user calls ----------------------------------------------------------------------

    @property
    def latent(self) -> Distribution:
        """The distribution of the latent."""
        return self._latent

    @property
    def condition(self) -> jax.Array | None:
        """The condition, of shape ``batch_shape + condition_shape``, or None."""
        return None if self._condition is None else self._condition.array

    @property
    def condition_shape(self) -> tuple[int, ...] | None:
        """Shape of one condition, or None."""
        return None if self._condition is None else self._condition.shape

    @property
    def support(self) -> constraints.Constraint:
        return self._declared.value[0]

    @property
    def event_dtype(self) -> np.dtype:
        """The dtype of events: the wider of the weights' dtype and JAX's default float."""
        return self._declared.value[1]

    @property
    def has_rsample(self) -> bool:
        return self._latent.has_rsample

    @classmethod
    def infer_shapes(cls, *args: Any, **kwargs: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Raise NotImplementedError: shapes follow from the network, not from its arguments."""
        raise NotImplementedError(
            message(
                f"{cls.__name__}.infer_shapes: shapes of a prior follow from its network, and not "
                "from the shapes of its arguments",
                remedy="build the prior and read its batch_shape and event_shape",
            )
        )

    def given(self, condition: ArrayLike) -> Self:
        """A copy of this prior with another condition.

        Parameters
        ----------
        condition
            Array whose trailing dimensions are those of one condition; leading dimensions become
            the batch shape. May be a traced value: gradients flow through it.

        Raises
        ------
        ValueError
            If the prior has no condition, or one of another shape.
        """
        if self._condition is None:
            raise ValueError(
                message(
                    f"{type(self).__name__}.given: this prior has no condition",
                    got=f"a condition of shape {jnp.shape(condition)}",
                    remedy="build it with condition= from a network of (latent, condition)",
                )
            )
        other = copy.copy(self)
        other._condition = self._condition.replace(validation.array(condition, "The condition"))
        other._batch_shape = jnp.broadcast_shapes(
            other._condition.batch_shape, self._latent.batch_shape
        )
        return other

    def decode(self, z: ArrayLike) -> jax.Array:
        """g(z), without decoder noise.

        Parameters
        ----------
        z
            Latents of shape ``(..., *latent.event_shape)``. Leading dimensions broadcast against
            the batch shape.

        Returns
        -------
        jax.Array
            Events of shape ``(..., *event_shape)``.
        """
        z = validation.latent_value(z, self._latent)
        return self._over_batch(self._decode, [(z, self._latent.event_dim)], [self.event_dim])

    def event_given(self, z: ArrayLike) -> Distribution:
        """The distribution of the event given the latent, N(g(z), scale²).

        Parameters
        ----------
        z
            Latents of shape ``(..., *latent.event_shape)``.

        Returns
        -------
        numpyro.distributions.Distribution
            With ``event_shape`` of this prior, and the leading dimensions of `z` (broadcast
            against the batch shape) as batch shape.

        Raises
        ------
        NotImplementedError
            If the density is not conditional: the event is then a function of the latent.
        """
        return dist.Normal(*self.event_loc_scale(z)).to_event(self.event_dim)

    def event_loc_scale(self, z: ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the event given the latent, each of the event's shape.

        Parameters
        ----------
        z
            Latents of shape ``(..., *latent.event_shape)``.

        Raises
        ------
        NotImplementedError
            If the density is not conditional.
        """
        z = validation.latent_value(z, self._latent)
        k = self.event_dim
        return self._over_batch(self._event_loc_scale, [(z, self._latent.event_dim)], [k, k])

    def inverse(self, x: ArrayLike) -> jax.Array:
        """A latent z with ``decode(z) == x``; the one of least norm if several give the event.

        Parameters
        ----------
        x
            Events of shape ``(..., *event_shape)``.

        Returns
        -------
        jax.Array
            Latents of shape ``(..., *latent.event_shape)``.

        Raises
        ------
        NotImplementedError
            If the family has no inverse.
        """
        x = validation.event_value(x, self.event_shape, self.event_dtype)
        return self._over_batch(self._inverse, [(x, self.event_dim)], [self._latent.event_dim])

    def encode(self, x: ArrayLike) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the latent that the encoder proposes for events.

        Parameters
        ----------
        x
            Events of shape ``(..., *event_shape)``.

        Returns
        -------
        tuple of jax.Array
            Two arrays of shape ``(..., *latent.event_shape)``.

        Raises
        ------
        ValueError
            If the prior has no encoder.
        """
        encoder = self.encoder
        if encoder is None:
            raise ValueError(
                message(
                    f"This {type(self).__name__} has no encoder", remedy="build it with encoder=net"
                )
            )
        x, k = validation.event_value(x, self.event_shape, self.event_dtype), self._latent.event_dim
        return self._over_batch(
            lambda x, c: encoders.encode(encoder, x, c), [(x, self.event_dim)], [k, k]
        )

    @property
    def has_fisher(self) -> bool:
        """Whether the family states the Fisher information of an observed event."""
        return type(self)._fisher_parameters is not Prior._fisher_parameters

    def fisher_parameters(self) -> PyTree:
        """Parameters of the distribution of an observed event, ``batch_shape`` leading."""
        return for_each_condition(self._fisher_parameters, [], self.batch_shape, self._condition)

    def fisher_root(self, tangent: PyTree) -> PyTree:
        """The square root of the Fisher information, applied to a tangent of the parameters."""
        return for_each_condition(self._fisher_root, [tangent], self.batch_shape, self._condition)

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw events of shape ``sample_shape + batch_shape + event_shape``."""
        warn_if_latent_is_ignored()
        key = validation.random_key(key)
        if self.density != "conditional":
            return self.decode(self._sample_latent(key, sample_shape))
        key_latent, key_noise = jax.random.split(key)
        z = self._sample_latent(key_latent, sample_shape)
        return jnp.asarray(self.event_given(z).sample(key_noise))

    def _sample_latent(self, key: jax.Array, sample_shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(self._latent.expand(self.batch_shape).sample(key, sample_shape))

    def log_prob(self, value: ArrayLike, intermediates: list | None = None) -> jax.Array:
        """Log density at events of shape ``(..., *event_shape)``.

        Outside the support, and where the density is not a number, minus infinity: NumPyro
        records a divergence.

        Raises
        ------
        NotImplementedError
            If the prior has no density on events.
        """
        if self.density != "exact":
            raise self._without_density("log_prob")
        if intermediates:
            return self._inside(jnp.asarray(value), self._log_prob_of_draw(*intermediates))
        return self._log_prob_of_value(value)

    @validate_sample
    def _log_prob_of_value(self, value: ArrayLike) -> jax.Array:
        value = validation.event_value(value, self.event_shape, self.event_dtype)
        log_prob = self._over_batch(self._log_prob, [(value, self.event_dim)], [0])
        return self._inside(value, log_prob)

    def _inside(self, value: jax.Array, log_prob: jax.Array) -> jax.Array:
        """Minus infinity outside the support and instead of NaN."""
        if is_real(self.support):
            return jnp.where(jnp.isnan(log_prob), -jnp.inf, log_prob)

        def inside(x: jax.Array, log_prob: jax.Array) -> jax.Array:
            valid = self.support(x) & ~jnp.isnan(log_prob)
            return jnp.where(valid, log_prob, -jnp.inf)

        return vectorise(inside, [(value, self.event_dim), (log_prob, 0)], [0])

    def score(self, value: ArrayLike) -> jax.Array:
        """Gradient of the log density with respect to the event.

        Parameters
        ----------
        value
            Events of shape ``(..., *event_shape)``.

        Returns
        -------
        jax.Array
            Same shape as `value` (broadcast against the batch shape).

        Raises
        ------
        NotImplementedError
            If the prior has no density on events.
        """
        if self.density != "exact":
            raise self._without_density("score")
        value = validation.event_value(value, self.event_shape, self.event_dtype)
        gradient = jax.grad(self._log_prob)
        return self._over_batch(gradient, [(value, self.event_dim)], [self.event_dim])

    # ---- batching ------------------------------------------------------------------------------

    def _over_batch(
        self,
        function: Callable[..., Any],
        arguments: Sequence[tuple[jax.Array, int]],
        outputs: Sequence[int],
    ) -> Any:
        """Map an unbatched ``function(*arguments, condition)`` over leading dimensions.

        `arguments` are pairs (array, number of dimensions of one element); `outputs` the number
        of dimensions of each output.
        """
        return over_conditions(function, arguments, outputs, self._condition)

    def _abstract_event(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct | None]:
        """One event and one condition (or None), as shapes and dtypes."""
        x = jax.ShapeDtypeStruct(self.event_shape, self.event_dtype)
        return x, None if self._condition is None else self._condition.abstract

    def __repr__(self) -> str:
        batch = f", batch_shape={self.batch_shape}" if self.batch_shape else ""
        return (
            f"{type(self).__name__}(latent_shape={self._latent.event_shape}, "
            f"event_shape={self.event_shape}{batch}, density={self.density!r})"
        )


def _is_built_in(cls: type) -> bool:
    """Whether this package defines the class."""
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _refuse_scan(prior: Prior) -> Prior:
    raise NotImplementedError(
        message(
            f"A {type(prior).__name__} inside scan would keep one copy of its weights per step",
            remedy="decorate the model with @ngp.latent: inside scan its priors then use their "
            "latent site, and the weights are not recorded",
        )
    )


promote_batch_shape.register(Prior, _refuse_scan)  # pyright: ignore[reportArgumentType, reportCallIssue]
