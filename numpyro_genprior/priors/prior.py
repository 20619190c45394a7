"""`Prior`: the abstract generative prior. The only place with batching and pytree code."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import validate_sample

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.flows.support import is_real
from numpyro_genprior.networks.static import Static
from numpyro_genprior.priors import shape_inference
from numpyro_genprior.priors.condition import Condition
from numpyro_genprior.priors.latent_distribution import as_latent
from numpyro_genprior.priors.missing_handler import warn_if_latent_is_ignored
from numpyro_genprior.priors.vectorise import vectorise

Density = Literal["exact", "conditional", "none"]


class Prior(Distribution):
    """A generative model as a NumPyro distribution.

    A prior is the law of ``x = g(z, c)`` (plus decoder noise, for some) with a latent ``z`` and
    an optional condition ``c``. Subclasses write unbatched functions of one latent or one event;
    shapes, batching over conditions, pytree behaviour and checks are done here, once.

    Parameters
    ----------
    latent
        The latent law: an integer for a standard normal of that size, a shape for a standard
        normal array, or a NumPyro distribution without batch dimensions (another prior, too).
    event_shape
        Shape of one event; found by `jax.eval_shape` when None.
    support
        Where the events live. A constraint on single numbers is declared for the whole event.
        The real numbers when None.
    condition
        Array given to the generator; leading dimensions beyond those of one condition become the
        batch shape. Integers (labels, up to 2²⁴) are allowed.
    condition_shape
        Shape of one condition. When None, the largest trailing shape that the generator takes.

    Attributes
    ----------
    density
        ``"exact"``, ``"conditional"`` (given the latent) or ``"none"``: whether ``log_prob`` of
        an event exists. A class attribute.
    trainable_fields, scale_field
        Names of the attributes that `ngp.param` trains, and of the positive one that it trains
        with ``scale=True``. Class attributes.
    no_density
        Why there is none, and what to do, for the message of `log_prob` and `score`. A class
        attribute.

    Raises
    ------
    ValueError, TypeError
        At construction: shapes, dtypes or outputs that cannot be, each with its remedy.
    NotImplementedError
        By `log_prob` and `score` where there is no density.

    Notes
    -----
    **Density** as the subclass states it.

    **Fails when** the subclass draws random numbers or reads shapes of batches in `_decode`: it
    is called on one latent, under `jax.vmap`.
    """

    density: Density = "none"
    trainable_fields: tuple[str, ...] = ()
    scale_field: str | None = None
    no_density: str = "events have no density. Put @ngp.latent on the model to infer the latent."
    arg_constraints = {}
    pytree_data_fields = ("_latent", "_condition")
    pytree_aux_fields = ("_declared",)

    _latent: Distribution
    _condition: Condition | None
    _declared: Static

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

    # ---- what a subclass writes: one latent, one event ---------------------------------------

    @abstractmethod
    def _decode(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        """g: one latent (and one condition, or None) to one event."""
        raise NotImplementedError(
            message(
                f"{type(self).__name__} has no _decode",
                expected="a subclass of Prior that makes an event of one latent",
                remedy="write _decode(self, z, condition), or use GANPrior(net, latent)",
            )
        )

    def _log_prob(self, x: jax.Array, condition: jax.Array | None) -> jax.Array:
        """Log density of one event, for priors whose density is exact."""
        raise self._without_density("log_prob")

    def _log_prob_of_draw(self, *intermediates: jax.Array) -> jax.Array:
        """Log density of a draw, from what ``sample_with_intermediates`` gave with it."""
        raise NotImplementedError(f"{type(self).__name__} gives no intermediates with its draws.")

    def _event_law(self, z: jax.Array, condition: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of one event given its latent, for priors whose density is
        conditional.
        """
        raise NotImplementedError(
            message(
                f"{type(self).__name__}: given the latent, the event has no density",
                remedy="use prior.decode(z), which is the event",
            )
        )

    # ---- what a user calls --------------------------------------------------------------------

    @property
    def latent(self) -> Distribution:
        """The latent law, a NumPyro distribution."""
        return self._latent

    @property
    def condition(self) -> jax.Array | None:
        """The condition, of shape ``batch_shape + condition_shape``, or None."""
        return None if self._condition is None else self._condition.array

    @property
    def support(self) -> constraints.Constraint:
        return self._declared.value[0]

    @property
    def event_dtype(self) -> Any:
        """The dtype of events: the widest of the weights' and of JAX's default float."""
        return self._declared.value[1]

    @property
    def has_rsample(self) -> bool:
        return self._latent.has_rsample

    def given(self, condition: ArrayLike) -> Any:
        """A copy of this prior with another condition.

        Parameters
        ----------
        condition
            Array whose trailing dimensions are those of one condition; leading dimensions become
            the batch shape. May be a traced value: gradients flow through it.

        Raises
        ------
        ValueError
            When the prior takes no condition, or one of another shape.
        """
        if self._condition is None:
            raise ValueError(
                message(
                    f"{type(self).__name__}.given: this prior takes no condition",
                    got=f"a condition of shape {jnp.shape(condition)}",
                    remedy="build it with condition= from a network that takes (latent, condition)",
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
        """The law of the event given the latent, N(g(z), scale²).

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
            When the density is not conditional: the event then is a function of the latent.
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
            As `event_given` does.
        """
        z = validation.latent_value(z, self._latent)
        k = self.event_dim
        return self._over_batch(self._event_law, [(z, self._latent.event_dim)], [k, k])

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
            When the prior has no density on events.
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

    def _without_density(self, method: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__}.{method}: {self.no_density}")

    def _inside(self, value: jax.Array, log_prob: jax.Array) -> jax.Array:
        """Minus infinity outside the support and instead of NaN."""
        if is_real(self.support):
            return jnp.where(jnp.isnan(log_prob), -jnp.inf, log_prob)

        def inside(x: jax.Array, log_prob: jax.Array) -> jax.Array:
            good = self.support(x) & ~jnp.isnan(log_prob)
            return jnp.where(good, log_prob, -jnp.inf)

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
            When the prior has no density on events.
        """
        if self.density != "exact":
            raise self._without_density("score")
        value = validation.event_value(value, self.event_shape, self.event_dtype)
        gradient = jax.grad(self._log_prob)
        return self._over_batch(gradient, [(value, self.event_dim)], [self.event_dim])

    # ---- batching and pytree -------------------------------------------------------------------

    def _over_batch(
        self,
        function: Callable[..., Any],
        arguments: list[tuple[jax.Array, int]],
        outputs: list[int],
    ) -> Any:
        """Map an unbatched ``function(*arguments, condition)`` over leading dimensions.

        `arguments` are pairs (array, number of dimensions of one element); `outputs` the number
        of dimensions of each output.
        """
        if self._condition is None:
            return vectorise(lambda *args: function(*args, None), arguments, outputs)
        validation.batches_fit(
            [a.shape[: a.ndim - n] for a, n in arguments], self._condition.batch_shape
        )
        pair = (self._condition.array, self._condition.ndim)
        return vectorise(function, [*arguments, pair], outputs)

    def __repr__(self) -> str:
        batch = f", batch_shape={self.batch_shape}" if self.batch_shape else ""
        return (
            f"{type(self).__name__}(latent_shape={self._latent.event_shape}, "
            f"event_shape={self.event_shape}{batch}, density={self.density!r})"
        )


def _refuse_scan(prior: Prior) -> Prior:
    raise NotImplementedError(
        message(
            f"A {type(prior).__name__} inside scan would keep one copy of its weights per step",
            remedy="decorate the model with @ngp.latent: inside scan its priors then use their "
            "latent site, and the weights are not recorded",
        )
    )


promote_batch_shape.register(Prior, _refuse_scan)  # pyright: ignore[reportArgumentType, reportCallIssue]
