"""Convolutions in channels-last layout, where XLA's CPU compiler is faster with it.

The compiler has fast kernels for convolutions whose channels come last. It converts other layouts
to that form at the top level of a program, but never in the body of a loop. The bounds below are
the sizes from which these kernels are faster, measured inside a loop
(``benchmarks/convolution.py`` shows the gain for a whole network).
"""

from __future__ import annotations

import math
from typing import TypedDict, Unpack

import jax
import numpy as np
from jax import lax
from jax.extend.core.primitives import conv_general_dilated_p

_DTYPES = ("float32", "float16", "bfloat16")  # there is no fast kernel in double precision
_MIN_CHANNEL_PRODUCT = 16  # input times output channels; below this the naive kernel is faster
_MIN_CHANNEL_PRODUCT_GROUPED_OR_3D = 64


class ConvolutionParams(TypedDict):
    """The parameters of JAX's convolution primitive that are used here; it has others."""

    window_strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    dimension_numbers: lax.ConvDimensionNumbers
    feature_group_count: int
    batch_group_count: int


def plain(lhs: jax.Array, rhs: jax.Array, **params: Unpack[ConvolutionParams]) -> jax.Array:
    """The convolution with its layout unchanged."""
    return conv_general_dilated_p.bind(lhs, rhs, **params)


def channels_last(lhs: jax.Array, rhs: jax.Array, **params: Unpack[ConvolutionParams]) -> jax.Array:
    """The same convolution between transposes if that is faster, else unchanged."""
    if not is_faster_channels_last(lhs, rhs, **params):
        return plain(lhs, rhs, **params)
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    n = len(lhs_spec)
    image = (0, n - 1, *range(1, n - 1))  # batch, rows, columns, channels
    kernel = (n - 1, n - 2, *range(n - 2))  # rows, columns, in, out
    out = plain(
        lax.transpose(lhs, (lhs_spec[0], *lhs_spec[2:], lhs_spec[1])),
        lax.transpose(rhs, (*rhs_spec[2:], rhs_spec[1], rhs_spec[0])),
        **{**params, "dimension_numbers": lax.ConvDimensionNumbers(image, kernel, image)},
    )
    back = np.argsort((out_spec[0], *out_spec[2:], out_spec[1]))
    return lax.transpose(out, tuple(int(axis) for axis in back))


def is_faster_channels_last(
    lhs: jax.Array, rhs: jax.Array, **params: Unpack[ConvolutionParams]
) -> bool:
    """Whether a channels-last kernel exists for this convolution and is faster."""
    spatial = lhs.ndim - 2
    groups = params["feature_group_count"]
    if any(str(x.dtype) not in _DTYPES for x in (lhs, rhs)) or not 1 <= spatial <= 3:
        return False
    if params["batch_group_count"] > 1:
        return False
    if spatial == 3 and math.prod(params["lhs_dilation"]) > 1:
        return False
    _, rhs_spec, _ = params["dimension_numbers"]
    products = rhs.shape[rhs_spec[1]] * rhs.shape[rhs_spec[0]] // groups
    if groups > 1 or spatial == 3:
        return products >= _MIN_CHANNEL_PRODUCT_GROUPED_OR_3D
    return products >= _MIN_CHANNEL_PRODUCT
