"""Train a normalizing flow."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import paramax
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from numpyro_genprior.flows.architectures import SplineCouplingFlow
from numpyro_genprior.priors.flow import FlowPrior
from numpyro_genprior.train.loop import (
    Augment,
    Epochs,
    FitResult,
    adam,
    augmented,
    check_data,
    fit_result,
    partition,
    split_rows,
    typed_key,
)

__all__ = ["fit_flow"]


def fit_flow(
    key: PRNGKeyArray,
    data: ArrayLike,
    *,
    flow: AbstractDistribution | None = None,
    condition: ArrayLike | None = None,
    augment: Augment | None = None,
    batch_size: int = 128,
    max_epochs: int = 200,
    patience: int = 20,
    val_fraction: float = 0.1,
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    show_progress: bool = True,
) -> FitResult[FlowPrior]:
    """Train a normalizing flow by maximum likelihood.

    The loss is −log p(x), or −log p(x | c) with a condition, averaged over a batch (Papamakarios
    et al. 2021, *Normalizing flows for probabilistic modeling and inference*, section 2.3).

    Parameters
    ----------
    key
        PRNG key of either kind; it determines the split, the weights and the order.
    data
        Events, shape ``(rows, *event_shape)``, floating and finite.
    flow
        A FlowJAX distribution over events. By default a
        :class:`~numpyro_genprior.flows.architectures.SplineCouplingFlow` that standardises the
        data. Leaves marked ``paramax.NonTrainable`` are not trained.
    condition
        Conditions, shape ``(rows, *cond_shape)``, one for each row of the data; None for an
        unconditional flow.
    augment
        Random change of one event, ``(key, event) -> event``, applied to training rows with a new
        key in each step and to validation rows with a fixed key. Added noise dequantises (Theis et
        al. 2016). It may change the shape of events; the flow then has the new shape.
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
    A :class:`FitResult` whose ``prior`` is a :class:`~numpyro_genprior.FlowPrior`. Losses are
    negative log densities in nats per event. A conditional prior carries the first row's
    condition; replace it with ``prior.given(condition)``.

    Raises
    ------
    ValueError
        If the data do not have this form, are constant in a coordinate, or do not have the flow's
        shape; if there are fewer rows than a batch; or if a setting is out of range.

    Warns
    -----
    RuntimeWarning
        If training stopped at a non-finite loss.

    Notes
    -----
    **Density** of the prior: exact. **Fails when** data lie on a surface of lower dimension or on a
    grid (8-bit images): the likelihood then has no maximum. Add noise with ``augment``.
    """
    events = check_data("data", data)
    event_shape = jax.eval_shape(lambda x: augmented(augment, jr.key(0), x), events).shape[1:]
    conditions = _check_conditions(condition, events.shape[0])
    split_key, flow_key, augment_key, val_key, run_key = jr.split(typed_key(key), 5)
    train_rows, val_rows = split_rows(
        split_key, events.shape[0], batch_size=batch_size, val_fraction=val_fraction
    )
    if flow is None:
        flow = _default_flow(
            flow_key, augmented(augment, augment_key, events[train_rows]), conditions
        )
    cond_shape = None if conditions is None else conditions.shape[1:]
    if flow.shape != event_shape or flow.cond_shape != cond_shape:
        raise ValueError(
            f"The flow must have the events' shape {event_shape} and the conditions' {cond_shape}, "
            f"got {flow.shape} and {flow.cond_shape}. Build the flow with these, or leave `flow` "
            "out."
        )
    params, static = partition(flow)

    def loss(params: PyTree, data: PyTree, rows: Array, key: PRNGKeyArray) -> Array:
        events, conditions = data
        dist = paramax.unwrap(eqx.combine(params, static))
        x = augmented(augment, key, events[rows])
        c = None if conditions is None else conditions[rows]
        return -jnp.mean(dist.log_prob(x, c))

    optimiser = adam(learning_rate, optimizer)

    def step(
        state: PyTree, data: PyTree, rows: Array, key: PRNGKeyArray
    ) -> tuple[PyTree, dict[str, Array]]:
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, data, rows, key)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"train": value}

    def evaluate(state: PyTree, data: PyTree) -> dict[str, Array]:
        return {"val": loss(state[0], data, val_rows, val_key)}

    epochs = Epochs(step, evaluate, lambda state: state[0])
    run = epochs.run(
        run_key,
        (params, optimiser.init(params)),
        (events, conditions),
        train_rows,
        batch_size=batch_size,
        max_epochs=max_epochs,
        patience=patience,
        show_progress=show_progress,
        description="fit_flow",
    )
    prior = FlowPrior(
        eqx.combine(run.weights, static), condition=None if conditions is None else conditions[0]
    )
    return fit_result(prior, run)


def _check_conditions(condition: ArrayLike | None, rows: int) -> Array | None:
    if condition is None:
        return None
    conditions = jnp.asarray(condition)
    if not jnp.issubdtype(conditions.dtype, jnp.integer):  # labels of an embedding stay integers
        conditions = check_data("condition", conditions)
    if conditions.shape[0] != rows:
        raise ValueError(
            f"`condition` must have a row for each of the {rows} rows of `data`, got shape "
            f"{conditions.shape}."
        )
    return conditions


def _default_flow(
    key: PRNGKeyArray, events: Array, conditions: Array | None
) -> AbstractDistribution:
    if conditions is not None and conditions.ndim != 2:
        raise ValueError(
            f"The default flow accepts condition vectors, shape (rows, size), got "
            f"{conditions.shape}. Flatten them or give `flow`."
        )
    scale = jnp.std(events, axis=0)
    constant = int(jnp.sum(jnp.min(events, axis=0) == jnp.max(events, axis=0)))
    if constant:
        raise ValueError(
            f"{constant} of {scale.size} coordinates of `data` are constant, and have no "
            "density. Leave them out, or add noise with `augment=lambda key, x: x + 0.05 * "
            "jax.random.normal(key, x.shape)`."
        )
    return SplineCouplingFlow(
        events.shape[1:],
        cond_dim=None if conditions is None else conditions.shape[1],
        loc=jnp.mean(events, axis=0),
        scale=scale,
        key=key,
    )
