"""Train a generative adversarial network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from numpyro_genprior.networks.architectures import MLPCritic, MLPDecoder
from numpyro_genprior.priors.gan import GANPrior
from numpyro_genprior.train.coverage import energy_distance, sample_coverage
from numpyro_genprior.train.loop import (
    Augment,
    Epochs,
    FitResult,
    augmented,
    check_augment,
    check_count,
    check_data,
    check_rate,
    fit_result,
    output_activation,
    partition,
    split_rows,
    typed_key,
)

__all__ = ["fit_gan"]

Function = Callable[..., Any]  # of parameters, a network or a loss

_MIN_COVERAGE = 0.3
_MIN_DIVERSITY = 0.6
_MAX_VAL_ROWS = 2000  # pairwise distances of more rows need memory and add little


def fit_gan(
    key: PRNGKeyArray,
    data: ArrayLike,
    *,
    latent_size: int,
    generator: Callable[..., Any] | None = None,
    critic: Callable[..., Any] | None = None,
    penalty: float = 1.0,
    ema: float = 0.999,
    augment: Augment | None = None,
    batch_size: int = 64,
    max_epochs: int = 300,
    patience: int = 50,
    val_fraction: float = 0.1,
    learning_rate: optax.ScalarOrSchedule = 2e-4,
    optimizer: optax.GradientTransformation | None = None,
    show_progress: bool = True,
) -> FitResult[GANPrior]:
    """Train a generative adversarial network, with a check against mode collapse.

    The game is the relativistic pairing GAN with zero-centred gradient penalties on real (R1) and
    generated (R2) events: the critic minimises E softplus(D(g(z)) − D(x)) + ½ penalty (E|∇D(x)|² +
    E|∇D(g(z))|²), the generator E softplus(D(x) − D(g(z))) (Huang et al. 2024, *The GAN is dead;
    long live the GAN!*; R1 from Mescheder et al. 2018). Unlike the classical game it converges
    locally, and dropping modes is penalised. The prior holds an exponential moving average
    of the generator's weights (Yazıcı et al. 2019), from the epoch whose energy distance to the
    validation rows is the lowest.

    Parameters
    ----------
    key
        PRNG key of either kind; it determines the split, the weights, the order and the noise.
    data
        Events, shape ``(rows, *event_shape)``, floating and finite.
    latent_size
        Number of latents.
    generator
        Equinox module from a latent ``(latent_size,)`` to an event. By default an
        :class:`~numpyro_genprior.networks.architectures.MLPDecoder`, with a sigmoid output
        if all data lie in [0, 1] and the identity otherwise.
    critic
        Equinox module from an event to a scalar, smooth (its gradient is differentiated). By
        default an :class:`~numpyro_genprior.networks.architectures.MLPCritic`.
    penalty
        Weight of the gradient penalties, in inverse squared units of the critic's slope. Larger
        values make training more stable and slower.
    ema
        Decay per step of the moving average of the generator's weights.
    augment
        Random change of one event, ``(key, event) -> event``, applied to real training rows with a
        new key in each step and to validation rows with a fixed key.
    batch_size
        Rows per step.
    max_epochs
        Passes through the training rows, at most.
    patience
        Epochs without a lower energy distance after which training stops.
    val_fraction
        Fraction of the rows kept for validation.
    learning_rate
        Adam's step size for both networks, a number or an optax schedule over steps.
    optimizer
        An optax optimiser for both networks in place of Adam (β₁ = 0, β₂ = 0.99);
        ``learning_rate`` is then unused.
    show_progress
        Whether to show a progress bar.

    Returns
    -------
    A :class:`FitResult` whose ``prior`` is a :class:`~numpyro_genprior.GANPrior`. Losses:
    ``"train"`` and ``"val"`` are the critic's (log 2 if it cannot tell samples from events;
    validation far above training shows a critic that has memorised its rows), ``"generator"`` the
    generator's, ``"distance"`` the energy distance. Diagnostics: ``"coverage"``, ``"density"`` and
    ``"diversity"`` on the validation rows, see :func:`~numpyro_genprior.train.sample_coverage`.

    Raises
    ------
    ValueError
        If the data do not have this form, there are fewer rows than a batch, a network's output has
        the wrong shape, or a setting is out of range.

    Warns
    -----
    RuntimeWarning
        If training stopped at a non-finite loss, or if coverage or diversity show mode collapse.

    Notes
    -----
    **Density** of the prior: none. **Fails when** rows are few: the critic then memorises them and
    the generator follows it. ``"val"`` far above ``"train"`` shows this; ``augment`` helps.
    """
    events = check_data("data", data)
    check_count(latent_size=latent_size)
    check_augment(augment, events)
    latent_size = int(latent_size)
    if not 0.0 <= ema < 1.0:
        raise ValueError(f"`ema` must lie in [0, 1), got {ema}; 0.999 is usual.")
    if penalty < 0.0:
        raise ValueError(f"`penalty` must not be negative, got {penalty}; 1 is usual.")
    split_key, net_key, val_key, run_key = jr.split(typed_key(key), 4)
    train_rows, val_rows = split_rows(
        split_key, events.shape[0], batch_size=batch_size, val_fraction=val_fraction, min_val=2
    )  # distances among them need two
    generator, critic = _complete_nets(generator, critic, events, latent_size, net_key)
    gen, gen_static = partition(generator)
    cri, cri_static = partition(critic)
    if optimizer is None:
        check_rate(learning_rate)
    optimiser = optimizer or optax.adam(learning_rate, b1=0.0, b2=0.99)

    noise_key, augment_key = jr.split(val_key)
    val_events = augmented(augment, augment_key, events[val_rows[:_MAX_VAL_ROWS]])
    val_latents = jr.normal(noise_key, (val_events.shape[0], latent_size))

    generate, apply_critic, critic_loss, generator_loss = _networks_and_losses(
        gen_static, cri_static, penalty
    )
    step = _training_step(
        generate, critic_loss, generator_loss, optimiser, augment, latent_size, ema
    )

    def evaluate(state: PyTree, data: PyTree) -> dict[str, Array]:
        _, val_events, val_latents = data
        _, cri, _, _, average, _ = state
        fake = generate(average, val_latents)
        val = jnp.mean(jax.nn.softplus(apply_critic(cri, fake) - apply_critic(cri, val_events)))
        return {"val": val, "distance": energy_distance(fake, val_events)}

    epochs = Epochs(step, evaluate, lambda state: state[4], select="distance")
    run = epochs.run(
        run_key,
        (gen, cri, optimiser.init(gen), optimiser.init(cri), gen, jnp.asarray(0.0)),
        (events, val_events, val_latents),
        train_rows,
        batch_size=batch_size,
        max_epochs=max_epochs,
        patience=patience,
        show_progress=show_progress,
        description="fit_gan",
    )
    samples = jax.jit(generate)(run.weights, val_latents)
    diagnostics, warned = _check_collapse(samples, val_events)
    prior = GANPrior(eqx.combine(run.weights, gen_static), latent_size)
    return fit_result(prior, run, diagnostics, warned)


def _networks_and_losses(
    gen_static: PyTree, cri_static: PyTree, penalty: float
) -> tuple[Function, Function, Function, Function]:
    """The generator, the critic and their losses, as functions of the trained parameters."""

    def generate(gen: PyTree, z: Array) -> Array:
        return jax.vmap(eqx.combine(gen, gen_static))(z)

    def apply_critic(cri: PyTree, x: Array) -> Array:
        return jax.vmap(eqx.combine(cri, cri_static))(x)

    def critic_loss(cri: PyTree, real: Array, fake: Array) -> tuple[Array, Array]:
        def with_penalty(x: Array) -> tuple[Array, Array]:
            values, pull = jax.vjp(lambda x: apply_critic(cri, x), x)
            (slope,) = pull(jnp.ones_like(values))
            return values, jnp.mean(jnp.sum(slope.reshape(len(x), -1) ** 2, axis=1))

        on_real, r1 = with_penalty(real)
        on_fake, r2 = with_penalty(fake)
        game = jnp.mean(jax.nn.softplus(on_fake - on_real))
        return game + 0.5 * penalty * (r1 + r2), game

    def generator_loss(gen: PyTree, cri: PyTree, real: Array, z: Array) -> Array:
        return jnp.mean(
            jax.nn.softplus(apply_critic(cri, real) - apply_critic(cri, generate(gen, z)))
        )

    return generate, apply_critic, critic_loss, generator_loss


def _training_step(
    generate: Function,
    critic_loss: Function,
    generator_loss: Function,
    optimiser: optax.GradientTransformation,
    augment: Augment | None,
    latent_size: int,
    ema: float,
) -> Function:
    """One step of critic, generator and the moving average of the generator's weights."""

    def step(
        state: PyTree, data: PyTree, rows: Array, key: PRNGKeyArray
    ) -> tuple[PyTree, dict[str, Array]]:
        events, _, _ = data
        gen, cri, gen_opt, cri_opt, average, count = state
        augment_key, first_key, second_key = jr.split(key, 3)
        real = augmented(augment, augment_key, events[rows])
        z = jr.normal(first_key, (real.shape[0], latent_size))
        (total, game), grads = jax.value_and_grad(critic_loss, has_aux=True)(
            cri, real, generate(gen, z)
        )
        updates, cri_opt = optimiser.update(grads, cri_opt, cri)
        cri = optax.apply_updates(cri, updates)
        z = jr.normal(second_key, (real.shape[0], latent_size))
        gen_value, grads = jax.value_and_grad(generator_loss)(gen, cri, real, z)
        updates, gen_opt = optimiser.update(grads, gen_opt, gen)
        gen = optax.apply_updates(gen, updates)
        decay = jnp.minimum(ema, (1.0 + count) / (10.0 + count))  # forgets the initial weights
        average = optax.incremental_update(gen, average, 1.0 - decay)
        # A diverged penalty or generator must stop training, too.
        train = jnp.where(jnp.isfinite(total) & jnp.isfinite(gen_value), game, jnp.nan)
        return (gen, cri, gen_opt, cri_opt, average, count + 1.0), {
            "train": train,
            "generator": gen_value,
        }

    return step


def _complete_nets(
    generator: Callable[..., Any] | None,
    critic: Callable[..., Any] | None,
    events: Array,
    latent_size: int,
    key: PRNGKeyArray,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The given networks, or default ones, with their shapes checked."""
    generator_key, critic_key = jr.split(key)
    event_shape = events.shape[1:]
    if generator is None:
        output = output_activation(events)
        generator = MLPDecoder(latent_size, event_shape, output=output, key=generator_key)
    if critic is None:
        critic = MLPCritic(event_shape, key=critic_key)
    _check_nets(generator, critic, latent_size, event_shape)
    return generator, critic


def _check_collapse(samples: Array, held_out: Array) -> tuple[dict[str, float], tuple[str, ...]]:
    """Measure coverage, and warn if it shows mode collapse."""
    num_neighbours = min(5, held_out.shape[0] - 1)
    if num_neighbours < 1:
        return {}, ()
    figures = sample_coverage(samples, held_out, num_neighbours=num_neighbours)
    if figures["coverage"] >= _MIN_COVERAGE and figures["diversity"] >= _MIN_DIVERSITY:
        return figures, ()
    sentence = (
        f"The generator has collapsed or has not converged: coverage "
        f"{figures['coverage']:.2f} (0.97 for a perfect generator, below {_MIN_COVERAGE} "
        f"alarming), diversity {figures['diversity']:.2f} (1 for a perfect generator, below "
        f"{_MIN_DIVERSITY} alarming). Modes of the data are missing from this prior, and "
        "posteriors under it will rule them out. Train longer, raise `penalty`, or lower "
        "`learning_rate`."
    )
    warnings.warn(sentence, RuntimeWarning, stacklevel=3)
    return figures, (sentence,)


def _check_nets(
    generator: Callable[..., Any],
    critic: Callable[..., Any],
    latent_size: int,
    event_shape: tuple[int, ...],
) -> None:
    out = eqx.filter_eval_shape(generator, jnp.zeros(latent_size))
    if getattr(out, "shape", None) != event_shape:
        raise ValueError(
            f"The generator must map a latent of shape ({latent_size},) to the data's event shape "
            f"{event_shape}, got {jax.tree.map(lambda o: o.shape, out)}. Networks are unbatched: "
            "one latent in, one event out."
        )
    out = eqx.filter_eval_shape(critic, jnp.zeros(event_shape))
    if getattr(out, "shape", None) != ():
        raise ValueError(
            f"The critic must map an event of shape {event_shape} to a scalar of shape (), got "
            f"{jax.tree.map(lambda o: o.shape, out)}. Networks are unbatched: one event in."
        )
