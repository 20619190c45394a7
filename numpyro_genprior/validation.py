"""Checks of arguments, used by all folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import PyTree
from numpyro.distributions import Distribution, constraints
from numpyro.util import is_prng_key

from numpyro_genprior.errors import message


def array(value: object, what: str) -> jax.Array:
    """Convert to an array; raise TypeError for what is not an array of numbers."""
    if not isinstance(value, (str, bytes, Mapping)) and value is not None:
        try:
            return jnp.asarray(cast(ArrayLike, value))
        except (TypeError, ValueError):
            pass
    raise TypeError(
        message(
            f"{what} is not an array of numbers",
            got=type(value).__name__,
            remedy="pass a number or an array",
        )
    )


def event_shape(decoded: jax.ShapeDtypeStruct, declared: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of an event; raise ValueError if another one was declared."""
    if declared is not None and tuple(declared) != decoded.shape:
        raise ValueError(
            message(
                "The network returns an event of the wrong shape",
                expected=str(tuple(declared)),
                got=decoded.shape,
                remedy="leave out event_shape to use the network's",
            )
        )
    return decoded.shape


def event_support(
    support: constraints.Constraint | None, shape: tuple[int, ...]
) -> constraints.Constraint:
    """A constraint with the event's dimensions as its event dimensions.

    Without them NumPyro would multiply the density by the event size.

    Raises
    ------
    TypeError
        If `support` is not a constraint.
    ValueError
        If it is discrete or has more dimensions than an event.
    """
    if support is None:
        support = constraints.real
    if not isinstance(support, constraints.Constraint):
        raise TypeError(
            message(
                "The support is not a constraint",
                expected="an instance of a numpyro.distributions.constraints class",
                got=repr(support),
                remedy="pass e.g. constraints.unit_interval, or constraints.interval(0.0, 2.0)",
            )
        )
    missing = len(shape) - support.event_dim
    if missing < 0:
        raise ValueError(
            message(
                f"The support {support} has more dimensions than an event",
                expected=f"at most {len(shape)}",
                got=support.event_dim,
                remedy="pass the constraint of one number, e.g. constraints.positive",
            )
        )
    if support.is_discrete:
        raise ValueError(
            message(
                f"The support {support} is discrete",
                expected="a continuous support",
                remedy="model counts or labels in the likelihood, not in the prior",
            )
        )
    return constraints.independent(support, missing) if missing else support


def latent_value(z: ArrayLike, latent: Distribution) -> jax.Array:
    """An array of shape ``(..., *latent.event_shape)``; raise ValueError if it has another."""
    z = array(z, "The latent")
    expected = latent.event_shape
    if z.shape[max(z.ndim - len(expected), 0) :] != expected:
        raise ValueError(
            message(
                "The latent has the wrong shape",
                expected=f"(..., {', '.join(map(str, expected))})",
                got=z.shape,
                remedy="batch dimensions come first, the latent's own last",
            )
        )
    return z


def event_value(x: ArrayLike, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """An array of floats of shape ``(..., *shape)``.

    Raises
    ------
    TypeError
        If it is complex.
    ValueError
        If it has another shape.
    """
    x = array(x, "The event")
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(
            message("The event is complex", expected=str(dtype), got=x.dtype, remedy="pass real x")
        )
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(dtype)
    if x.shape[max(x.ndim - len(shape), 0) :] != shape:
        raise ValueError(
            message(
                "The event has the wrong shape",
                expected=f"(..., {', '.join(map(str, shape))})",
                got=x.shape,
                remedy="batch dimensions come first, the event's own last; reshape the event",
            )
        )
    return x


def batches_fit(leading: list[tuple[int, ...]], batch_shape: tuple[int, ...]) -> None:
    """Raise ValueError if leading dimensions do not broadcast against the batch of conditions."""
    try:
        jnp.broadcast_shapes(*leading, batch_shape)
    except ValueError:
        raise ValueError(
            message(
                "Leading dimensions do not fit the batch of conditions",
                expected=f"leading dimensions that broadcast against {batch_shape}",
                got=", ".join(map(str, leading)),
                remedy="give one value for each condition, or put a dimension of 1 in between",
            )
        ) from None


def random_key(key: object) -> jax.Array:
    """A random key, typed or raw; raise TypeError for anything else."""
    try:
        valid = is_prng_key(key)
    except Exception:
        valid = False
    if not valid:
        raise TypeError(
            message(
                "This is not a random key",
                expected="jax.random.key(seed), or a raw uint32 key",
                got=f"{type(key).__name__}"
                + (f" of shape {jnp.shape(cast(ArrayLike, key))}" if hasattr(key, "shape") else ""),
                remedy="pass jax.random.key(0); inside a model, run it under numpyro.handlers.seed",
            )
        )
    return cast(jax.Array, key)


def at_least(caller: str, minimum: int, **counts: int) -> None:
    """Check `counts`, which are arguments of `caller`.

    Raises
    ------
    TypeError
        If one is not an integer.
    ValueError
        If one is below `minimum`.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise TypeError(
                message(
                    f"{caller}: {name} is a count",
                    expected="an integer",
                    got=f"a {type(count).__name__}",
                    remedy=f"pass an integer for {name}",
                )
            )
        if count < minimum:
            raise ValueError(
                message(
                    f"{caller}: {name} is too small",
                    expected=f"at least {minimum}",
                    got=count,
                    remedy=f"pass a larger {name}",
                )
            )


def _all(test: Callable[[np.ndarray], np.ndarray], array: jax.Array) -> bool:
    """Test a concrete array with NumPy: inside a traced model JAX would trace the test too."""
    return bool(np.all(test(np.asarray(array))))


def weights_finite(
    tree: PyTree,
    what: str,
    remedy: str = "load the weights again or train again with a smaller step; a prior must be "
    "finite",
) -> None:
    """Raise ValueError for NaN or infinite weights. Traced weights are not checked."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, Tracer) or not hasattr(leaf, "dtype"):
            continue
        if not jnp.issubdtype(leaf.dtype, jnp.inexact) or _all(np.isfinite, leaf):
            continue
        raise ValueError(
            message(
                f"{what} has numbers that are not finite",
                got=f"NaN or infinity in a leaf of shape {leaf.shape} at "
                f"{jax.tree_util.keystr(path) or 'the root'}",
                remedy=remedy,
            )
        )


def positive(
    scale: ArrayLike,
    what: str,
    shape: tuple[int, ...],
    remedy: str,
) -> jax.Array:
    """An array of positive numbers that broadcasts to `shape`; raise ValueError otherwise."""
    scale = array(scale, what)
    scale = jnp.asarray(scale, dtype=jnp.result_type(float, scale.dtype))
    try:
        fits = jnp.broadcast_shapes(scale.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            message(
                f"{what} has the wrong shape",
                expected=f"a number, or an array that broadcasts to {shape}",
                got=scale.shape,
                remedy="give one value, or one value for each entry of the event",
            )
        )
    if jnp.iscomplexobj(scale) or (
        not isinstance(scale, Tracer) and not _all(lambda s: (s > 0) & np.isfinite(s), scale)
    ):
        raise ValueError(
            message(
                f"{what} is not positive",
                expected="finite values above zero",
                got=_worst(np.asarray(scale)),
                remedy=remedy,
            )
        )
    return scale


def _worst(scale: np.ndarray) -> complex:
    return (
        scale.flat[0]
        if np.iscomplexobj(scale)
        else float(np.min(scale[~((scale > 0) & (scale < np.inf))]))
    )
