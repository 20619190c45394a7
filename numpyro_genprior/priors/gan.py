"""`GANPrior`: the distribution of g(z), singular on its manifold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, cast

import jax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints

from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors import network_validation
from numpyro_genprior.priors.encoder import check_encoder, freeze_encoder
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.stored import StoredPrior

if TYPE_CHECKING:
    from numpyro_genprior.priors.vae import VAEPrior


class GANPrior(Prior):
    """The distribution of ``x = g(z)``, for a generator g and a latent z.

    The prior of a trained GAN, or of the decoder of a VAE without noise. Use it in a model under
    `ngp.latent` (or `ngp.sample`): the latent becomes the sample site ``x_latent`` and the event
    the deterministic site ``x``.

    Parameters
    ----------
    net
        Generator of one latent (and one condition, if there is one): an Equinox module, a
        plain function, or from `ngp.networks`. Its weights are leaves of the prior.
    latent
        Size of a standard normal latent, its shape, or a distribution (possibly another prior).
    encoder
        Network of one event (and optionally one condition) that returns ``(loc, scale)`` of
        a normal distribution over the latent: a start for inference.
    support
        Where events live; None: the real numbers.
    condition
        Array given to the generator; leading dimensions become the batch shape.
    condition_shape
        Shape of one condition, if it cannot be inferred from the network.

    Raises
    ------
    ValueError, TypeError
        If the network does not accept one latent, returns two outputs, or has NaN weights.
    NotImplementedError
        If `log_prob` or `score` is called.

    Notes
    -----
    **Density** none: with dim z < dim x the distribution is singular and has no density with
    respect to Lebesgue measure. The density on the latent is that of ``prior.latent``.

    **Fails when** the data are not in the range of g: no latent explains them, and the posterior
    is confident and wrong. `thicken` adds decoder noise, and returns a `VAEPrior`.

    References
    ----------
    Goodfellow et al., Generative adversarial nets, NeurIPS 2014. Bora, Jalal, Price, Dimakis,
    Compressed sensing using generative models, ICML 2017.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GANPrior(lambda z: jnp.outer(jnp.tanh(z), jnp.ones(3)), 2)
    >>> prior
    GANPrior(latent_shape=(2,), event_shape=(2, 3), density='none')
    >>> prior.sample(jax.random.key(0), (5,)).shape
    (5, 2, 3)
    """

    density = "none"
    no_density = (
        "the distribution is singular, events have no density. Put @ngp.latent on the model (or "
        "use ngp.sample for this site) to infer the latent, or prior.thicken(scale) for a prior "
        "with decoder noise."
    )
    no_fisher = (
        "it has no density on events. Observe through a likelihood with noise, or use "
        "prior.thicken(scale) under @ngp.latent."
    )
    pytree_data_fields = ("_net", "_encoder")
    trainable_fields = ("_net",)

    def __init__(
        self,
        net: Callable[..., Any],
        latent: int | tuple[int, ...] | Distribution,
        *,
        encoder: Callable[..., Any] | None = None,
        condition: ArrayLike | None = None,
        condition_shape: tuple[int, ...] | None = None,
        support: constraints.Constraint | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._net = network_validation.freeze(net, "The generator")
        self._encoder = freeze_encoder(encoder)
        super().__init__(
            latent,
            support=support,
            condition=condition,
            condition_shape=condition_shape,
            validate_args=validate_args,
        )
        if self._encoder is not None:
            check_encoder(self._encoder, *self._abstract_event(), self._latent.event_shape)

    @property
    def net(self) -> Frozen:
        """The generator, frozen."""
        return self._net

    @property
    def encoder(self) -> Frozen | None:
        """The encoder, frozen, or None."""
        return self._encoder

    def _decode(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        return network_validation.call(self._net, z, condition)

    @classmethod
    def _from_file(cls, stored: StoredPrior) -> Self:
        return cls(
            stored.network("net"),
            stored.latent,
            encoder=stored.network("encoder"),
            condition=stored.condition,
            condition_shape=stored.condition_shape,
            support=stored.support,
            validate_args=stored.validate_args,
        )

    def thicken(self, scale: ArrayLike) -> VAEPrior:
        """A `VAEPrior` of the same generator, with decoder noise of standard deviation `scale`.

        The encoder is kept, if there is one.

        Parameters
        ----------
        scale
            Positive; in units of the event; broadcasts to ``event_shape``.
        """
        vae_prior: Any = Prior.families["VAEPrior"]  # vae.py imports this file
        prior = vae_prior(
            self._net,
            self._latent,
            scale=scale,
            encoder=self._encoder,
            condition=self.condition,
            condition_shape=self.condition_shape,
        )
        return cast("VAEPrior", prior)
