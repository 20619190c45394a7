"""`GANPrior`: the law of g(z), singular on its manifold."""

from __future__ import annotations

from typing import Any

import jax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints

from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors import network_validation
from numpyro_genprior.priors.prior import Prior


class GANPrior(Prior):
    """The law of ``x = g(z)``, for a generator g and a latent z.

    What a trained GAN, or the noiseless decoder of a VAE, says about x. Use it in a model under
    `ngp.latent` (or `ngp.sample`): the latent becomes the sample site ``x_latent`` and the event
    the deterministic site ``x``.

    Parameters
    ----------
    net
        Generator of one latent (and one condition, when there is one): an Equinox module, a
        plain function, or from `ngp.networks`. Its weights are leaves of the prior.
    latent
        Size of a standard normal latent, its shape, or a distribution (another prior, too).
    support
        Where events live; the real numbers when None.
    condition
        Array given to the generator; leading dimensions become the batch shape.
    condition_shape
        Shape of one condition, when it cannot be told from the network.

    Raises
    ------
    ValueError, TypeError
        When the network does not take one latent, returns two outputs, or has NaN weights.
    NotImplementedError
        By `log_prob` and `score`.

    Notes
    -----
    **Density** none: with dim z < dim x the law is singular, with respect to Lebesgue measure it
    has no density at all. The density on the latent is that of ``prior.latent``.

    **Fails when** the data are not in the range of g: no latent explains them, and the posterior
    is confident and wrong. `thicken` gives the blurred neighbour, a `VAEPrior`.

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
        "the law is singular, events have no density. Put @ngp.latent on the model (or use "
        "ngp.sample for this site) to infer the latent, or prior.thicken(scale) for a prior with "
        "decoder noise."
    )
    pytree_data_fields = ("_net",)
    trainable_fields = ("_net",)

    def __init__(
        self,
        net: Any,
        latent: int | tuple[int, ...] | Distribution,
        *,
        condition: ArrayLike | None = None,
        condition_shape: tuple[int, ...] | None = None,
        support: constraints.Constraint | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._net = network_validation.freeze(net, "The generator")
        super().__init__(
            latent,
            support=support,
            condition=condition,
            condition_shape=condition_shape,
            validate_args=validate_args,
        )

    @property
    def net(self) -> Frozen:
        """The generator, frozen."""
        return self._net

    def _decode(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        return network_validation.call(self._net, z, condition)

    def thicken(self, scale: ArrayLike) -> Any:
        """The blurred neighbour: a `VAEPrior` with decoder noise of standard deviation `scale`.

        Parameters
        ----------
        scale
            Positive; in units of the event; broadcasts to ``event_shape``.
        """
        from numpyro_genprior.priors.vae import VAEPrior

        return VAEPrior(
            self._net,
            self.latent,
            scale=scale,
            condition=self.condition,
            condition_shape=None if self._condition is None else self._condition.shape,
        )
