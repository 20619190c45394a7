"""Parts that all training loops share: checks, the split, epochs, early stopping, the result."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree
from paramax import NonTrainable
from tqdm.auto import tqdm

from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

__all__ = ["Augment", "Epochs", "FitResult", "Run", "fit_result"]

P = TypeVar("P", bound=Prior)
S = TypeVar("S")  # state of training
W = TypeVar("W")  # weights

Augment = Callable[[PRNGKeyArray, Array], Array]
"""A random change of one event: ``(key, event) -> event``."""


class Run(NamedTuple, Generic[W]):
    """What `Epochs.run` returns."""

    weights: W
    """The weights of the best epoch."""
    losses: dict[str, list[float]]
    stopped: str
    best_epoch: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, repr=False, eq=False)
class FitResult(Result, Generic[P]):
    """The result of a training loop. ``print(result)`` states it in words.

    Attributes
    ----------
    prior
        The trained prior, ready for a NumPyro model, with the best weights that training saw.
    losses
        Loss histories by name, one number for each epoch: ``"train"`` and ``"val"`` always.
    stopped
        Why training stopped: ``"patience"``, ``"max_epochs"`` or ``"non-finite loss at ..."``.
    best_epoch
        The epoch whose weights were kept, counted from 1; 0 for the initial weights.
    diagnostics
        Numbers measured on the validation rows after training; empty if there are none.
    warnings
        Sentences about a loss that was not finite or a generator that has collapsed; empty if there
        is nothing to report.
    """

    prior: P
    losses: Mapping[str, list[float]]
    stopped: str
    best_epoch: int
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{type(self.prior).__name__} trained for {_epochs(self.losses)}; "
            f"stopped by {self.stopped}; weights of epoch {self.best_epoch} kept"
        ]
        if self.best_epoch > 0:
            index = self.best_epoch - 1
            parts = [f"{k} {v[index]:.4g}" for k, v in self.losses.items() if len(v) > index]
            lines.append("  losses at that epoch: " + ", ".join(parts))
        if self.diagnostics:
            parts = [f"{k} {v:.3g}" for k, v in self.diagnostics.items()]
            lines.append("  diagnostics: " + ", ".join(parts))
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"FitResult({type(self.prior).__name__}, {_epochs(self.losses)}, "
            f"best_epoch={self.best_epoch}, stopped={self.stopped.split(' at ')[0]!r})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The losses by epoch, see `numpyro_genprior.plots.losses`."""
        from numpyro_genprior.plots import losses

        return losses(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """The losses by ``epoch``, with the end of training and the diagnostics as attributes."""
        numbers = np.arange(1, len(self.losses["train"]) + 1)
        return dataset(
            {name: (("epoch",), values) for name, values in self.losses.items()},
            coords={"epoch": numbers},
            attrs={"stopped": self.stopped, "best_epoch": self.best_epoch, **self.diagnostics},
        )


def fit_result(
    prior: P,
    run: Run,
    diagnostics: Mapping[str, float] | None = None,
    warnings: tuple[str, ...] = (),
) -> FitResult[P]:
    """The result of a run, with the prior that has its weights."""
    return FitResult(
        prior, run.losses, run.stopped, run.best_epoch, diagnostics or {}, run.warnings + warnings
    )


def _epochs(losses: Mapping[str, list[float]]) -> str:
    number = len(losses["train"])
    return f"{number} epoch{'' if number == 1 else 's'}"


def typed_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """Accept both kinds of PRNG key and return the typed one."""
    array = jnp.zeros(()) if key is None else jnp.asarray(key)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) and array.shape == ():
        return array
    if array.dtype == jnp.uint32 and array.ndim == 1:
        return jr.wrap_key_data(array)
    raise ValueError(
        f"`key` must be one PRNG key, got {type(key).__name__} of dtype {array.dtype} and shape "
        f"{array.shape}. Make one with jax.random.key(0)."
    )


def check_data(name: str, data: ArrayLike, *, min_dims: int = 2) -> Array:
    """Return the data as a floating array; raise a ValueError if they are invalid."""
    raw = np.asarray(data) if not isinstance(data, jax.Array) else data
    if raw.ndim < min_dims:
        raise ValueError(
            f"`{name}` must have shape (rows, *event_shape) with {min_dims} dimensions or more, "
            f"got shape {raw.shape}. For scalar events reshape to (rows, 1)."
        )
    if not jnp.issubdtype(raw.dtype, jnp.floating):
        raise ValueError(
            f"`{name}` must be floating, got dtype {raw.dtype}. Scale it first, for example "
            f"`{name}.astype('float32') / 255` for 8-bit images."
        )
    array = jnp.asarray(raw)
    num_bad = int(jnp.sum(~jnp.isfinite(array)))
    if num_bad:
        raise ValueError(
            f"`{name}` must be finite, got {num_bad} NaN or infinite elements of {array.size}. "
            "Remove or impute them."
        )
    return array


def check_positive(**values: float) -> None:
    """Raise unless each value is positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be positive, got {value}.")


def check_count(**values: int) -> None:
    """Raise unless each value is a positive integer."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")


def check_augment(augment: Augment | None, data: Array) -> None:
    """Raise unless the augmentation keeps the shape of an event."""
    shape = jax.eval_shape(lambda x: augmented(augment, jr.key(0), x), data).shape[1:]
    if shape != data.shape[1:]:
        raise ValueError(
            f"`augment` must return an event of the shape {data.shape[1:]} that it was given, got "
            f"{shape}. Change the shape of `data` before training."
        )


def split_rows(
    key: PRNGKeyArray, rows: int, *, batch_size: int, val_fraction: float, min_val: int = 1
) -> tuple[Array, Array]:
    """Draw the indices of training and of validation rows."""
    check_count(batch_size=batch_size)
    if not 0.0 < val_fraction < 1.0:
        raise ValueError(
            f"`val_fraction` must lie between 0 and 1, got {val_fraction}. "
            "Early stopping needs validation rows; 0.1 is usual."
        )
    num_val = max(min_val, round(val_fraction * rows))
    if rows - num_val < batch_size:
        raise ValueError(
            f"`batch_size` must not exceed the training rows: got batch_size={batch_size} with "
            f"{rows} rows, of which {num_val} are for validation. Lower `batch_size` or give more "
            "rows."
        )
    order = jr.permutation(key, rows)
    return order[num_val:], order[:num_val]


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Split a module into what is trained (inexact arrays not marked NonTrainable) and the rest."""
    return eqx.partition(
        tree, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable)
    )


def output_activation(events: Array) -> str:
    """Name of a generator's output activation: a sigmoid if all data lie in [0, 1]."""
    unit = bool(jnp.min(events) >= 0.0) and bool(jnp.max(events) <= 1.0)
    return "sigmoid" if unit else "identity"


def augmented(augment: Augment | None, key: PRNGKeyArray, rows: Array) -> Array:
    """Apply the augmentation to each row, with a separate key."""
    if augment is None:
        return rows
    return jax.vmap(augment)(jr.split(key, rows.shape[0]), rows)


def check_rate(learning_rate: optax.ScalarOrSchedule) -> None:
    """Raise for a negative learning rate; a rate of zero trains nothing, and is allowed."""
    if not callable(learning_rate) and not float(learning_rate) >= 0:
        raise ValueError(f"`learning_rate` must not be negative, got {learning_rate}.")


def adam(
    learning_rate: optax.ScalarOrSchedule, optimizer: optax.GradientTransformation | None
) -> optax.GradientTransformation:
    """Return the optimiser given, or Adam with the gradient's global norm clipped."""
    if optimizer is not None:
        return optimizer
    check_rate(learning_rate)
    return optax.chain(optax.clip_by_global_norm(100.0), optax.adam(learning_rate))


@dataclass(frozen=True)
class Epochs(Generic[S, W]):
    """Run epochs of jitted steps with early stopping.

    The steps run in a Python loop: progress, early stopping and non-finite losses are handled on
    the host. Inside ``lax.scan``, moreover, convolutions of networks that are not `Frozen` are slow
    on CPU (see `numpyro_genprior.networks.convolution`).

    Attributes
    ----------
    step
        ``(state, data, rows, key) -> (state, losses)``, traceable; rows are indices into the data
        and losses is a dict with ``"train"``.
    evaluate
        ``(state, data) -> losses``, traceable; a dict of scalars with ``"val"``.
    keep
        ``state -> weights`` to keep when the selected loss is the lowest so far.
    select
        The name of the loss that decides which weights are kept and when to stop.
    """

    step: Callable[[S, PyTree, Array, PRNGKeyArray], tuple[S, dict[str, Array]]]
    evaluate: Callable[[S, PyTree], dict[str, Array]]
    keep: Callable[[S], W]
    select: str = "val"

    def run(
        self,
        key: PRNGKeyArray,
        state: S,
        data: PyTree,
        train_rows: Array,
        *,
        batch_size: int,
        max_epochs: int,
        patience: int,
        show_progress: bool,
        description: str,
    ) -> Run[W]:
        """Train until `patience` or `max_epochs` is reached or a loss is not finite."""
        check_count(max_epochs=max_epochs, patience=patience)
        step, evaluate = jax.jit(self.step), jax.jit(self.evaluate)
        num_batches = train_rows.shape[0] // batch_size
        losses: dict[str, list[float]] = {"train": [], "val": []}
        best, best_loss, best_epoch = self.keep(state), math.inf, 0
        stopped = "max_epochs"
        with tqdm(range(1, max_epochs + 1), desc=description, disable=not show_progress) as bar:
            for epoch in bar:
                order_key, *keys = jr.split(jr.fold_in(key, epoch), 1 + num_batches)
                order = jr.permutation(order_key, train_rows)
                batches = order[: num_batches * batch_size].reshape(num_batches, batch_size)
                history = []
                for rows, step_key in zip(batches, keys, strict=True):
                    state, metrics = step(state, data, rows, step_key)
                    history.append(metrics)
                values = {k: np.asarray([m[k] for m in history]) for k in history[0]}
                nonfinite = np.flatnonzero(~np.isfinite(values["train"]))
                if nonfinite.size:
                    stopped = (
                        f"non-finite loss at epoch {epoch}, "
                        f"step {nonfinite[0] + 1} of {num_batches}"
                    )
                    break
                scores = {k: float(v) for k, v in evaluate(state, data).items()}
                for name, value in {**{k: v.mean() for k, v in values.items()}, **scores}.items():
                    losses.setdefault(name, []).append(float(value))
                if not math.isfinite(scores[self.select]):
                    stopped = f"non-finite loss at epoch {epoch}, on the validation rows"
                    break
                if scores[self.select] < best_loss:
                    best, best_loss, best_epoch = self.keep(state), scores[self.select], epoch
                shown = {"train": losses["train"][-1], self.select: scores[self.select]}
                bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items()}, best=best_epoch)
                if epoch - best_epoch >= patience:
                    stopped = "patience"
                    break
        return Run(best, losses, stopped, best_epoch, _warn_if_not_finite(stopped, best_epoch))


def _warn_if_not_finite(stopped: str, best_epoch: int) -> tuple[str, ...]:
    if not stopped.startswith("non-finite"):
        return ()
    sentence = (
        f"Training stopped: {stopped}. The weights of epoch {best_epoch} are returned"
        f"{' (the initial ones)' if best_epoch == 0 else ''}. Lower `learning_rate` or "
        "standardise the data."
    )
    warnings.warn(sentence, RuntimeWarning, stacklevel=4)
    return (sentence,)
