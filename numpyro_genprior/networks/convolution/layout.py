"""Which convolutions the CPU compiler should see channels-last, and how they become so.

XLA's CPU compiler has fast kernels for convolutions whose channels come last, and brings other
layouts into that form only at the top level of a program: never in the body of a loop. The
bounds below are where these kernels gain, measured inside a loop (``benchmarks/convolution.py``
shows the gain of a whole network).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core.primitives import conv_general_dilated_p

_DTYPES = ("float32", "float16", "bfloat16")  # there is no fast kernel in double precision
_FEWEST_PRODUCTS = 16  # products of channels for each tap of a kernel: below, plain loops win
_FEWEST_PRODUCTS_ELSE = 64  # the same for groups and for three spatial dimensions


def plain(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """The convolution as it is."""
    return conv_general_dilated_p.bind(lhs, rhs, **params)


def channels_last(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """The same convolution between transposes, where that gains; else as it is."""
    if not gains(lhs, rhs, **params):
        return plain(lhs, rhs, **params)
    numbers = params.pop("dimension_numbers")
    lhs_spec, rhs_spec, out_spec = numbers
    n = len(lhs_spec)
    image = (0, n - 1, *range(1, n - 1))  # batch, rows, columns, channels
    kernel = (n - 1, n - 2, *range(n - 2))  # rows, columns, in, out
    out = plain(
        lax.transpose(lhs, (lhs_spec[0], *lhs_spec[2:], lhs_spec[1])),
        lax.transpose(rhs, (*rhs_spec[2:], rhs_spec[1], rhs_spec[0])),
        dimension_numbers=lax.ConvDimensionNumbers(image, kernel, image),
        **params,
    )
    back = np.argsort((out_spec[0], *out_spec[2:], out_spec[1]))
    return lax.transpose(out, tuple(int(axis) for axis in back))


def gains(lhs: jax.Array, rhs: jax.Array, **params: Any) -> bool:
    """Whether the fast kernels exist for this convolution and are the faster ones."""
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
    return products >= (_FEWEST_PRODUCTS_ELSE if groups > 1 or spatial == 3 else _FEWEST_PRODUCTS)
