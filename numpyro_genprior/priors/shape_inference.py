"""Find the shapes of events and conditions by abstract evaluation, and explain failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree

from numpyro_genprior import validation
from numpyro_genprior.errors import NetworkError, message
from numpyro_genprior.priors.condition import Condition


class OutputError(TypeError):
    """A network's output that a prior cannot use, with a message that says what to do."""


EXPLAINED_ERRORS = (OutputError, NetworkError, NotImplementedError, Warning)
"""Errors whose messages already say what to do."""


def abstract_event(decode: Callable[..., Any], z: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape and dtype of g(z) for a generator without a condition.

    Raises
    ------
    ValueError
        If the generator fails on `z`.
    OutputError
        If it does not return one array of floats.
    """
    try:
        output = jax.eval_shape(lambda z: decode(z, None), z)
    except EXPLAINED_ERRORS:
        raise
    except Exception as error:
        raise _explained_error(decode, z, error) from error
    return one_array(output)


def _explained_error(
    decode: Callable[..., Any], z: jax.ShapeDtypeStruct, error: Exception
) -> Exception:
    reason = first_line(error)
    if isinstance(error, TypeError) and "missing" in reason and "argument" in reason:
        return ValueError(
            message(
                f"The network needs a condition ({reason})",
                expected="condition=",
                got="none",
                remedy="pass condition=array; a model replaces it with prior.given(c). A switch, a "
                "key or a state is not a condition: pass it to from_flax, from_haiku or "
                "functools.partial",
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
                f"The network fails on one latent of shape {z.shape} but accepts a batch of one",
                expected="an unbatched network",
                remedy="pass lambda z: net(z[None])[0]; the prior does the batching",
            )
        )
    remedy = "check latent= against the network's input size (with a condition: and condition=)"
    if isinstance(error, jax.errors.JAXTypeError):
        remedy = "write it with jax.numpy, without branches on values; jax.pure_callback is slow, "
        remedy += "but accepts any function"
    elif "key" in reason.split() and isinstance(error, RuntimeError):
        remedy = "put it into inference mode, eqx.nn.inference_mode(net); noise of the decoder is "
        remedy += "VAEPrior's `scale`"
    return ValueError(
        message(
            f"The network fails on one latent ({type(error).__name__}: {reason})",
            expected=f"a function of one latent of shape {z.shape}",
            remedy=remedy,
        )
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, without a full stop."""
    return (str(error).splitlines() or [""])[0].rstrip(".")


def fit_condition(
    condition: ArrayLike,
    shape: tuple[int, ...] | None,
    decode: Callable[..., Any],
    z: jax.ShapeDtypeStruct,
) -> tuple[Condition, jax.ShapeDtypeStruct]:
    """Find which trailing dimensions of `condition` are one condition, and the abstract event.

    Raises
    ------
    ValueError
        If the generator accepts no split of the dimensions.
    OutputError
        If it does not return one array of floats.
    """
    array = validation.array(condition, "The condition")
    validation.weights_finite(array, "The condition", "pass finite numbers")

    def output(condition: Condition) -> PyTree:
        return jax.eval_shape(decode, z, condition.abstract)

    if shape is not None:
        fitted = Condition(array, tuple(shape))
        return fitted, one_array(output(fitted))
    first_error: Exception | None = None
    rank_promotions = ["raise", "allow"] if array.ndim else ["allow"]
    for rank_promotion in rank_promotions:  # first without broadcasting inside the network
        for start in range(array.ndim + 1):
            fitted = Condition(array, array.shape[start:])
            try:
                with jax.numpy_rank_promotion(rank_promotion):
                    return fitted, one_array(output(fitted))
            except EXPLAINED_ERRORS:
                raise
            except Exception as error:
                first_error = first_error or error
    raise ValueError(
        message(
            "The network does not accept the condition "
            f"({first_error and first_line(first_error)})",
            expected="a network of (latent, condition)",
            got=f"a condition of shape {array.shape}, dtype {array.dtype}",
            remedy="give one condition (batch dimensions in front; labels as integers), or leave "
            "out condition= for a network of the latent alone",
        )
    ) from first_error


def one_array(output: PyTree) -> jax.ShapeDtypeStruct:
    """The network's abstract output; raises OutputError if it is not one array of floats."""
    if not isinstance(output, jax.ShapeDtypeStruct):
        if isinstance(output, (tuple, list)) and len(output) == 2:
            raise OutputError(
                message(
                    "The network has two outputs where one event is wanted",
                    got="a pair, as from a VAE decoder that returns a scale",
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
