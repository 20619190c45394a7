"""Train a variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from numpyro_genprior.networks.architectures import MLPDecoder, MLPEncoder
from numpyro_genprior.priors.vae import VAEPrior
from numpyro_genprior.train.loop import (
    Augment,
    Epochs,
    FitResult,
    adam,
    augmented,
    check_augment,
    check_count,
    check_data,
    check_positive,
    fit_result,
    output_activation,
    partition,
    split_rows,
    typed_key,
)

__all__ = ["fit_vae"]

_LOG_2PI = math.log(2.0 * math.pi)


def gaussian_kl(loc: Float[Array, " latent"], scale: Float[Array, " latent"]) -> Float[Array, ""]:
    """KL divergence of N(loc, diag(scale²)) from N(0, I), in nats.

    ½ Σ (loc² + scale² − 1 − 2 log scale); Kingma & Welling (2014), appendix B.
    """
    return 0.5 * jnp.sum(loc**2 + scale**2 - 1.0 - 2.0 * jnp.log(scale))


def fit_vae(
    key: PRNGKeyArray,
    data: ArrayLike,
    *,
    latent_size: int,
    decoder: Callable[..., Any] | None = None,
    encoder: Callable[..., Any] | None = None,
    scale: float | None = None,
    beta: float = 1.0,
    augment: Augment | None = None,
    batch_size: int = 128,
    max_epochs: int = 200,
    patience: int = 20,
    val_fraction: float = 0.1,
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    show_progress: bool = True,
) -> FitResult[VAEPrior]:
    """Train a variational autoencoder by maximising the evidence lower bound.

    The bound is E_q(z|x)[log p(x | z)] − β KL(q(z | x) ‖ N(0, I)) with p(x | z) =
    N(decoder(z), scale² I), the KL divergence in closed form and one draw of z per row (Kingma &
    Welling 2014, *Auto-encoding variational Bayes*). Without ``scale`` one scalar standard
    deviation is learnt with the weights (Rybkin et al. 2021, *Simple and effective VAE training
    with calibrated decoders*), which balances the two terms without tuning.

    Parameters
    ----------
    key
        PRNG key of either kind; it determines the split, the weights, the order and the noise.
    data
        Events, shape ``(rows, *event_shape)``, floating and finite.
    latent_size
        Number of latents.
    decoder
        Equinox module from a latent ``(latent_size,)`` to an event, or to (loc, scale). By default
        an :class:`~numpyro_genprior.networks.architectures.MLPDecoder`, with a sigmoid output
        if all data lie in [0, 1] and the identity otherwise.
    encoder
        Equinox module from an event to (loc, scale), each ``(latent_size,)``. By default an
        :class:`~numpyro_genprior.networks.architectures.MLPEncoder`.
    scale
        Standard deviation of the decoder's noise, in the data's units; None to learn it. Must be
        None where the decoder gives (loc, scale).
    beta
        Weight of the KL divergence (Higgins et al. 2017); 1 is the evidence lower bound.
    augment
        Random change of one event, ``(key, event) -> event``, applied to training rows with a new
        key in each step and to validation rows with a fixed key.
    batch_size
        Rows per step.
    max_epochs
        Passes through the training rows, at most.
    patience
        Epochs without a better validation loss after which training stops.
    val_fraction
        Fraction of the rows kept for validation.
    learning_rate
        Adam's step size, a number or an optax schedule over steps.
    optimizer
        An optax optimiser in place of Adam; ``learning_rate`` is then unused.
    show_progress
        Whether to show a progress bar.

    Returns
    -------
    A :class:`FitResult` whose ``prior`` is a :class:`~numpyro_genprior.VAEPrior` with the encoder
    as proposal. Losses are negative bounds in nats per event.

    Raises
    ------
    ValueError
        If the data do not have this form, there are fewer rows than a batch, or a setting is out of
        range.

    Warns
    -----
    RuntimeWarning
        If training stopped at a non-finite loss.

    Notes
    -----
    **Density** of the prior: conditional, p(x | z) only. **Fails when** the decoder ignores the
    latents (posterior collapse: the KL divergence goes to 0) or the rows are so few that the
    encoder memorises them (train and val losses diverge early).
    """
    events = check_data("data", data)
    check_count(latent_size=latent_size)
    check_positive(beta=beta)
    check_augment(augment, events)
    latent_size = int(latent_size)
    event_shape = events.shape[1:]
    split_key, decoder_key, encoder_key, val_key, run_key = jr.split(typed_key(key), 5)
    train_rows, val_rows = split_rows(
        split_key, events.shape[0], batch_size=batch_size, val_fraction=val_fraction
    )
    if decoder is None:
        output = output_activation(events)
        decoder = MLPDecoder(latent_size, event_shape, output=output, key=decoder_key)
    if encoder is None:
        encoder = MLPEncoder(event_shape, latent_size, key=encoder_key)
    two_outputs = _check_nets(decoder, encoder, latent_size, event_shape)
    if two_outputs and scale is not None:
        raise ValueError(
            f"The decoder gives (loc, scale), so `scale` must be None, got {scale}. Leave `scale` "
            "out or give a decoder with one output."
        )
    if scale is not None:
        check_positive(scale=scale)
    learnt = scale is None and not two_outputs
    if learnt and bool(jnp.min(events) == jnp.max(events)):
        raise ValueError(
            f"All elements of `data` are {float(events.ravel()[0]):g}, and no scale of the "
            "decoder's noise can be learnt from them. Give `scale`, or check the data."
        )
    log_scale = jnp.log(jnp.std(events[train_rows])) if learnt else None
    params, static = partition((decoder, encoder, log_scale))

    loss = _negative_elbo(static, two_outputs, scale, beta, augment)
    optimiser = adam(learning_rate, optimizer)

    def step(
        state: PyTree, events: Array, rows: Array, key: PRNGKeyArray
    ) -> tuple[PyTree, dict[str, Array]]:
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, events, rows, key)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"train": value}

    def evaluate(state: PyTree, events: Array) -> dict[str, Array]:
        return {"val": loss(state[0], events, val_rows, val_key)}

    epochs = Epochs(step, evaluate, lambda state: state[0])
    run = epochs.run(
        run_key,
        (params, optimiser.init(params)),
        events,
        train_rows,
        batch_size=batch_size,
        max_epochs=max_epochs,
        patience=patience,
        show_progress=show_progress,
        description="fit_vae",
    )
    decoder, encoder, log_scale = eqx.combine(run.weights, static)
    fitted = scale if log_scale is None else jnp.exp(log_scale)
    prior = VAEPrior(decoder, latent_size, scale=fitted, encoder=encoder)
    return fit_result(prior, run)


def _negative_elbo(
    static: PyTree, two_outputs: bool, scale: float | None, beta: float, augment: Augment | None
) -> Callable[[PyTree, Array, Array, PRNGKeyArray], Array]:
    """The loss: minus the evidence lower bound, averaged over rows, with one draw of z per row."""

    def loss(params: PyTree, events: Array, rows: Array, key: PRNGKeyArray) -> Array:
        decoder, encoder, log_scale = eqx.combine(params, static)
        augment_key, noise_key = jr.split(key)
        x = augmented(augment, augment_key, events[rows])
        loc, sd = jax.vmap(encoder)(x)
        z = loc + sd * jr.normal(noise_key, loc.shape)
        out = jax.vmap(decoder)(z)
        if two_outputs:
            mean, spread = out
        else:
            mean, spread = out, jnp.asarray(scale) if log_scale is None else jnp.exp(log_scale)
        residual = (x - mean) / spread
        terms = 0.5 * residual**2 + jnp.log(spread) + 0.5 * _LOG_2PI
        distortion = jnp.sum(terms.reshape(x.shape[0], -1), axis=1)
        return jnp.mean(distortion + beta * jax.vmap(gaussian_kl)(loc, sd))

    return loss


def _check_nets(
    decoder: Callable[..., Any],
    encoder: Callable[..., Any],
    latent_size: int,
    event_shape: tuple[int, ...],
) -> bool:
    """Check both networks' shapes; return whether the decoder gives (loc, scale)."""
    out = eqx.filter_eval_shape(decoder, jnp.zeros(latent_size))
    two_outputs = isinstance(out, tuple) and len(out) == 2
    shapes = [leaf.shape for leaf in jax.tree.leaves(out)]
    if any(shape != event_shape for shape in shapes):
        raise ValueError(
            f"The decoder must map a latent of shape ({latent_size},) to the data's event shape "
            f"{event_shape}, got {shapes}. Networks are unbatched: one latent in, one event out."
        )
    out = eqx.filter_eval_shape(encoder, jnp.zeros(event_shape))
    got = [leaf.shape for leaf in jax.tree.leaves(out)]
    if got != [(latent_size,)] * 2:
        raise ValueError(
            f"The encoder must map an event of shape {event_shape} to (loc, scale), each of shape "
            f"({latent_size},), got {got}. Networks are unbatched: one event in."
        )
    return two_outputs
