"""`VAEPrior`: a decoder with Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors import network_validation
from numpyro_genprior.priors.encoder import check_encoder, freeze_encoder, loc_and_scale
from numpyro_genprior.priors.gan import GANPrior
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.stored import StoredPrior


class VAEPrior(Prior):
    """The distribution of ``x = g(z) + scale · noise``, for a decoder g and white noise.

    The prior of a trained variational autoencoder. Under `ngp.latent` the latent becomes the sample
    site ``x_latent``; the option ``noise=`` sets how the decoder noise enters the model.

    Parameters
    ----------
    net
        Decoder of one latent (and one condition). With ``scale=None`` it returns
        ``(loc, scale)``.
    latent
        Size of a standard normal latent, its shape, or a distribution, e.g. a `FlowPrior`.
    scale
        Standard deviation of the decoder noise, in units of the event: a number, an array that
        broadcasts to the event, or None if the decoder returns it.
    encoder
        Network of one event (and optionally one condition) that returns ``(loc, scale)`` of
        a normal distribution over the latent: the proposal of `log_prob_bound`, and a start for
        inference.
    condition
        Array given to the decoder; leading dimensions become the batch shape.
    condition_shape
        Shape of one condition, if it cannot be inferred from the network.

    Raises
    ------
    ValueError, TypeError
        If a network does not fit, a scale is not positive, or weights are NaN.
    NotImplementedError
        If `log_prob` or `score` is called.

    Notes
    -----
    **Density** conditional: ``p(x | z) = N(x; g(z), scale²)`` is tractable (`event_given`), the
    marginal ``p(x) = ∫ p(x | z) p(z) dz`` is not; `log_prob_bound` is a lower bound on its
    logarithm in expectation.

    **Fails when** the decoder ignores its latent (posterior collapse), or its noise is far from
    the real residual of held-out events.

    References
    ----------
    Kingma, Welling, Auto-encoding variational Bayes, ICLR 2014. Burda, Grosse, Salakhutdinov,
    Importance weighted autoencoders, ICLR 2016.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.VAEPrior(lambda z: jnp.tile(z, 2), 3, scale=0.1)
    >>> prior
    VAEPrior(latent_shape=(3,), event_shape=(6,), density='conditional')
    >>> prior.event_given(jnp.zeros(3)).event_shape
    (6,)
    """

    density = "conditional"
    no_density = (
        "events have a density only given the latent. Put @ngp.latent on the model (or use "
        "ngp.sample for this site) to infer the latent, use prior.log_prob_bound(key, x, "
        "num_samples) for a lower bound, or prior.event_given(z)."
    )
    no_fisher = (
        "its density on events is not tractable. Put @ngp.latent on the model: the event is then "
        "observed given its latent, by prior.event_given."
    )
    pytree_data_fields = ("_net", "_scale", "_encoder")
    trainable_fields = ("_net", "_encoder")
    scale_field = "_scale"

    def __init__(
        self,
        net: Callable[..., Any],
        latent: int | tuple[int, ...] | Distribution,
        *,
        scale: ArrayLike | None,
        encoder: Callable[..., Any] | None = None,
        condition: ArrayLike | None = None,
        condition_shape: tuple[int, ...] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._net = network_validation.freeze(net, "The decoder")
        self._scale = None if scale is None else validation.array(scale, "The scale of the decoder")
        self._encoder = freeze_encoder(encoder)
        super().__init__(
            latent,
            condition=condition,
            condition_shape=condition_shape,
            validate_args=validate_args,
        )
        if scale is None:
            self._check_decoder_scale()
        else:
            self._scale = validation.positive(
                scale,
                "The scale of the decoder",
                self.event_shape,
                "pass a standard deviation; for no noise at all use GANPrior",
            )
        if self._encoder is not None:
            check_encoder(self._encoder, *self._abstract_event(), self._latent.event_shape)

    @property
    def net(self) -> Frozen:
        """The decoder, frozen."""
        return self._net

    @property
    def encoder(self) -> Frozen | None:
        """The encoder, frozen, or None."""
        return self._encoder

    @property
    def scale(self) -> jax.Array | None:
        """Standard deviation of the decoder noise; None if the decoder returns it."""
        return self._scale

    @property
    def event_scale(self) -> jax.Array | None:
        """The same as `scale`."""
        return self._scale

    def _decode(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        output = network_validation.call(self._net, z, condition)
        return output if self._scale is not None else loc_and_scale(output, "decoder")[0]

    def _event_loc_scale(
        self, z: jax.Array, condition: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        output = network_validation.call(self._net, z, condition)
        if self._scale is None:
            loc, scale = loc_and_scale(output, "decoder")
            return loc, jnp.broadcast_to(scale, loc.shape)
        return output, jnp.broadcast_to(self._scale, output.shape)

    def log_prob_bound(self, key: jax.Array, x: ArrayLike, num_samples: int = 64) -> jax.Array:
        """Importance-weighted lower bound on the log density of events.

        ``log (1/K) Σ_k p(x | z_k) p(z_k) / q(z_k | x)`` with ``z_k ~ q``: the encoder's normal
        if there is one, otherwise the distribution of the latent. Its expectation is at most
        ``log p(x)`` and grows with K (Burda et al. 2016, theorem 1). A draw outside the latent's
        support, or with a density of NaN, gets weight zero, which only lowers the bound: minus
        infinity if all weights are zero.

        Parameters
        ----------
        key
            Random key.
        x
            Events of shape ``(..., *event_shape)``.
        num_samples
            K, at least 1.

        Returns
        -------
        jax.Array
            One estimate for each event, in nats.

        Raises
        ------
        ValueError
            If `num_samples` is not a positive integer.
        """
        if not isinstance(num_samples, (int, np.integer)) or num_samples < 1:
            raise ValueError(
                message(
                    "log_prob_bound needs samples",
                    expected="num_samples of at least 1, an integer",
                    got=num_samples,
                    remedy="pass num_samples=64",
                )
            )
        key = validation.random_key(key)
        x = validation.event_value(x, self.event_shape, self.event_dtype)
        batch = jnp.broadcast_shapes(x.shape[: x.ndim - self.event_dim], self.batch_shape)
        x = jnp.broadcast_to(x, batch + self.event_shape)
        if self._encoder is None:  # q is the distribution of the latent: p / q = 1
            z, correction = self._latent.expand(batch).sample(key, (num_samples,)), 0.0
        else:
            k = self._latent.event_dim
            loc, scale = self.encode(x)
            white = jax.random.normal(key, (num_samples, *loc.shape), loc.dtype)
            z = loc[None] + scale[None] * white
            latent: Any = self._latent
            proposal: Any = dist.Normal(loc[None], scale[None]).to_event(k)
            correction = jnp.asarray(latent.log_prob(z)) - proposal.log_prob(z)
            correction = jnp.where(latent.support(z), correction, -jnp.inf)
        log_weights = jnp.asarray(self.event_given(jnp.asarray(z)).log_prob(x[None])) + correction
        log_weights = jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
        return jax.nn.logsumexp(log_weights, axis=0) - math.log(num_samples)

    def _check_decoder_scale(self) -> None:
        z = jax.ShapeDtypeStruct(self._latent.event_shape, self.event_dtype)
        condition = None if self._condition is None else self._condition.abstract
        output = jax.eval_shape(lambda z, c: network_validation.call(self._net, z, c), z, condition)
        scale = loc_and_scale(output, "decoder")[1]
        try:
            fits = jnp.broadcast_shapes(scale.shape, self.event_shape) == self.event_shape
        except ValueError:
            fits = False
        if not fits or not jnp.issubdtype(scale.dtype, jnp.floating):
            raise ValueError(
                message(
                    "The scale that the decoder returns does not fit its mean",
                    expected=f"floats that broadcast to {self.event_shape}",
                    got=f"{scale.dtype} of shape {scale.shape}",
                    remedy="return one positive standard deviation, or one for each entry",
                )
            )

    @classmethod
    def _from_file(cls, stored: StoredPrior) -> Self:
        return cls(
            stored.network("net"),
            stored.latent,
            scale=stored.array("scale"),
            encoder=stored.network("encoder"),
            condition=stored.condition,
            condition_shape=stored.condition_shape,
            validate_args=stored.validate_args,
        )

    def with_scale(self, scale: ArrayLike) -> VAEPrior:
        """The same prior with another decoder noise; the encoder is kept.

        Parameters
        ----------
        scale
            Standard deviation, positive, in units of the event; broadcasts to ``event_shape``. It
            replaces a scale that the decoder returns.

        Raises
        ------
        ValueError
            If the scale is not positive or does not fit the event.

        Examples
        --------
        >>> import jax.numpy as jnp, numpyro_genprior as ngp
        >>> prior = ngp.VAEPrior(lambda z: jnp.tile(z, 2), 3, scale=0.1)
        >>> float(prior.with_scale(0.5).scale)
        0.5
        """
        return VAEPrior(
            self._mean_net(),
            self._latent,
            scale=scale,
            encoder=self._encoder,
            condition=self.condition,
            condition_shape=self.condition_shape,
        )

    def noiseless(self) -> GANPrior:
        """The manifold without decoder noise, a `GANPrior` with the same latent and encoder."""
        return GANPrior(
            self._mean_net(),
            self._latent,
            encoder=self._encoder,
            condition=self.condition,
            condition_shape=self.condition_shape,
        )

    def _mean_net(self) -> Callable[..., Any]:
        return self._net if self._scale is not None else _First(self._net)


class _First(eqx.Module):
    """The first of two outputs: the mean of a decoder that also returns a scale."""

    net: Frozen

    def __call__(self, *arguments: jax.Array) -> jax.Array:
        return self.net(*arguments)[0]
