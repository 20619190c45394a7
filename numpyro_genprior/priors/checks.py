"""What is checked when a prior is built or called, each failure with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.util import is_prng_key

from numpyro_genprior.errors import message
from numpyro_genprior.priors.condition import Condition
from numpyro_genprior.priors.standard_normal import StandardNormal


def as_latent(latent: Any) -> Distribution:
    """An integer, a shape or a distribution as a latent law."""
    if isinstance(latent, Distribution):
        return _continuous_event(latent)
    shape = (latent,) if isinstance(latent, (int, np.integer)) else latent
    is_shape = isinstance(shape, tuple) and all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in shape
    )
    if not is_shape:
        raise TypeError(
            message(
                "The latent is not a law",
                expected="a positive integer, a shape, or a NumPyro distribution",
                got=repr(latent),
                remedy="pass the size of a standard normal latent, e.g. latent=20",
            )
        )
    return StandardNormal(tuple(int(n) for n in shape))


def _continuous_event(latent: Distribution) -> Distribution:
    from numpyro_genprior.priors.prior import Prior

    if latent.batch_shape and not isinstance(latent, Prior):
        raise ValueError(
            message(
                "The latent distribution has batch dimensions",
                expected="batch_shape ()",
                got=latent.batch_shape,
                remedy=f"make them event dimensions: latent.to_event({len(latent.batch_shape)})",
            )
        )
    if latent.is_discrete:
        raise ValueError(
            message(
                "The latent distribution is discrete",
                expected="a continuous law",
                got=type(latent).__name__,
                remedy="use one prior a value and mix them, or condition= for labels",
            )
        )
    return jax.tree.map(_as_float, latent)


def _as_float(leaf: Any) -> Any:
    """Parameters given as integers (``StudentT(3)``) become floats, so that they have gradients."""
    if isinstance(leaf, bool) or isinstance(leaf, Tracer):
        return leaf
    return jnp.asarray(leaf, float) if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else leaf


class OutputError(TypeError):
    """A network's output that cannot be what the prior needs; already explained."""


def abstract_event(decode: Callable[..., Any], z: jax.ShapeDtypeStruct) -> Any:
    """Shape and dtype of g(z) for a generator without a condition, or why there is none."""
    try:
        output = jax.eval_shape(lambda z: decode(z, None), z)
    except (OutputError, NotImplementedError):
        raise
    except Exception as error:
        raise _explained(decode, z, error) from error
    return one_array(output)


def _explained(decode: Callable[..., Any], z: jax.ShapeDtypeStruct, error: Exception) -> Exception:
    if isinstance(error, TypeError) and "missing" in str(error) and "argument" in str(error):
        return ValueError(
            message(
                f"The network wants a condition ({error})",
                expected="condition=",
                got="none",
                remedy="pass condition=array; a model replaces it with prior.given(c)",
            )
        )
    batched = jax.ShapeDtypeStruct((1, *z.shape), z.dtype)
    try:
        leaves = jax.tree.leaves(jax.eval_shape(lambda z: decode(z, None), batched))
    except Exception:
        leaves = []
    if leaves and all(leaf.shape[:1] == (1,) for leaf in leaves):
        return ValueError(
            message(
                f"The network fails on one latent of shape {z.shape} and takes a batch of one",
                expected="an unbatched network",
                remedy="pass lambda z: net(z[None])[0]; the prior does the batching",
            )
        )
    return ValueError(
        message(
            f"The network fails on one latent ({type(error).__name__}: {error})",
            expected=f"a function of one latent of shape {z.shape}",
            remedy="check latent= against the network's input size",
        )
    )


def fit_condition(
    condition: ArrayLike,
    shape: tuple[int, ...] | None,
    decode: Callable[..., Any],
    z: jax.ShapeDtypeStruct,
) -> tuple[Condition, Any]:
    """Find which trailing dimensions of `condition` are one condition, and the event."""
    array = jnp.asarray(condition)

    def output(condition: Condition) -> Any:
        return jax.eval_shape(decode, z, condition.abstract)

    if shape is not None:
        fitted = Condition(array, tuple(shape))
        return fitted, one_array(output(fitted))
    first_error: Exception | None = None
    modes = ["raise", "allow"] if array.ndim else ["allow"]
    for mode in modes:  # prefer a split that needs no implicit broadcasting inside the network
        for start in range(array.ndim + 1):
            fitted = Condition(array, array.shape[start:])
            try:
                with jax.numpy_rank_promotion(mode):
                    return fitted, one_array(output(fitted))
            except (OutputError, NotImplementedError):
                raise
            except Exception as error:
                first_error = first_error or error
    raise ValueError(
        message(
            f"The network does not take the condition ({first_error})",
            expected="a network of (latent, condition)",
            got=f"a condition of shape {array.shape}, dtype {array.dtype}",
            remedy="give one condition (batch dimensions in front), or leave out condition= for "
            "a network of the latent alone",
        )
    ) from first_error


def one_array(output: Any) -> Any:
    """The network's output must be one array of floats."""
    if not isinstance(output, jax.ShapeDtypeStruct):
        if isinstance(output, (tuple, list)) and len(output) == 2:
            raise OutputError(
                message(
                    "The network has two outputs where one event is wanted",
                    got="a pair, as of a VAE decoder with its own scale",
                    remedy="use VAEPrior(net, latent, scale=None), or return the first output",
                )
            )
        raise OutputError(
            message(
                "The network does not return an array",
                got=type(output).__name__,
                remedy="return one array of the event's shape",
            )
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise OutputError(
            message(
                "Events are not real numbers",
                expected="a floating dtype",
                got=output.dtype,
                remedy="let the network return floats; model counts or labels in the likelihood",
            )
        )
    return output


def event_shape(decoded: Any, declared: tuple[int, ...] | None) -> tuple[int, ...]:
    if declared is not None and tuple(declared) != decoded.shape:
        raise ValueError(
            message(
                "The network returns an event of the wrong shape",
                expected=str(tuple(declared)),
                got=decoded.shape,
                remedy="leave out event_shape to take the network's own",
            )
        )
    return decoded.shape


def event_support(
    support: constraints.Constraint | None, shape: tuple[int, ...]
) -> constraints.Constraint:
    """Declare a constraint for the whole event.

    Without its event dimension NumPyro would multiply the density by the event size.
    """
    if support is None:
        support = constraints.real
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
    z = jnp.asarray(z)
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


def event_value(x: ArrayLike, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    x = jnp.asarray(x)
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


def random_key(key: Any) -> jax.Array:
    try:
        good = is_prng_key(key)
    except Exception:
        good = False
    if not good:
        raise TypeError(
            message(
                "This is not a random key",
                expected="jax.random.key(seed), or a raw uint32 key",
                got=f"{type(key).__name__}"
                + (f" of shape {jnp.shape(key)}" if hasattr(key, "shape") else ""),
                remedy="pass jax.random.key(0); inside a model, run it under numpyro.handlers.seed",
            )
        )
    return key


def _all(test: Callable[[Any], Any], array: Any) -> bool:
    """Test a concrete array by NumPy: inside a traced model JAX would trace the test, too."""
    return bool(np.all(test(np.asarray(array))))


def weights_finite(tree: Any, what: str) -> None:
    """Refuse NaN and infinite weights. Traced weights cannot be looked at, and are not."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, Tracer) or not hasattr(leaf, "dtype"):
            continue
        if not jnp.issubdtype(leaf.dtype, jnp.inexact) or _all(np.isfinite, leaf):
            continue
        raise ValueError(
            message(
                f"{what} has weights that are not finite",
                got=f"NaN or infinity in a leaf of shape {leaf.shape} at "
                f"{jax.tree_util.keystr(path) or 'the root'}",
                remedy="load the weights again or train again with a smaller step; a prior must "
                "be finite",
            )
        )


def positive(scale: ArrayLike, what: str, shape: tuple[int, ...]) -> jax.Array:
    """A positive array that broadcasts to `shape`."""
    scale = jnp.asarray(scale, dtype=jnp.result_type(float, jnp.asarray(scale).dtype))
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
    if not isinstance(scale, Tracer) and not _all(lambda s: s > 0, scale):
        raise ValueError(
            message(
                f"{what} is not positive",
                expected="values above zero",
                got=float(np.min(np.asarray(scale))),
                remedy="pass a standard deviation; for no noise at all use GANPrior",
            )
        )
    return scale
