"""Encoders: networks that propose a normal distribution of the latent for an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from numpyro_genprior.errors import message
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors import network_validation, shape_inference


def freeze_encoder(encoder: Callable[..., Any] | None) -> Frozen | None:
    """A `Frozen` encoder with finite weights, or None."""
    return None if encoder is None else network_validation.freeze(encoder, "The encoder")


def encode(
    encoder: Callable[..., Any], x: jax.Array, condition: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the latent for one event.

    The encoder of a conditional prior may be a function of the event only.

    Raises
    ------
    OutputError
        If the encoder does not return two outputs.
    """
    if condition is None:
        return loc_and_scale(encoder(x), "encoder")
    try:
        return loc_and_scale(encoder(x, condition), "encoder")
    except TypeError as error:
        try:
            return loc_and_scale(encoder(x), "encoder")
        except TypeError:
            raise error from None


def check_encoder(
    encoder: Callable[..., Any],
    x: jax.ShapeDtypeStruct,
    condition: jax.ShapeDtypeStruct | None,
    latent_shape: tuple[int, ...],
) -> None:
    """Evaluate an encoder on an abstract event, and raise if its outputs are not two latents."""
    try:
        outputs = jax.eval_shape(lambda x, c: encode(encoder, x, c), x, condition)
    except shape_inference.EXPLAINED_ERRORS:
        raise
    except Exception as error:
        raise ValueError(
            message(
                f"The encoder fails on one event ({type(error).__name__}: "
                f"{shape_inference.first_line(error)})",
                expected=f"a function of one event of shape {x.shape}",
                remedy="pass an unbatched network that returns (loc, scale)",
            )
        ) from error
    shapes = tuple(output.shape for output in outputs)
    if shapes != (latent_shape,) * 2:
        raise ValueError(
            message(
                "The encoder's outputs have the wrong shapes",
                expected=f"(loc, scale), each of shape {latent_shape}",
                got=shapes,
                remedy="return the mean and the standard deviation of the latent",
            )
        )


def loc_and_scale(output: PyTree, what: str) -> tuple[Any, Any]:
    """The two outputs (loc, scale) of an encoder, or of a decoder that returns a scale.

    Raises
    ------
    OutputError
        If there are not two outputs.
    """
    if isinstance(output, (tuple, list)) and len(output) == 2:
        loc, scale = output
        return loc, scale
    raise shape_inference.OutputError(
        message(
            f"The {what} does not return two outputs",
            expected="a pair (loc, scale)",
            got=f"{len(output)} outputs" if isinstance(output, (tuple, list)) else "one output",
            remedy="pass scale=0.1 (or an array) to VAEPrior for a decoder that gives the mean only"
            if what == "decoder"
            else "return the mean and the standard deviation of the latent",
        )
    )
