"""The image of a box under a FlowJAX bijection, as a NumPyro constraint."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flowjax import bijections as fb
from numpyro.distributions import Distribution, constraints

# Bijections that act on each entry by a monotone function, or only move entries about: the image
# of a box is the box between the images of its corners.
_ELEMENTWISE = (
    fb.Affine,
    fb.Exp,
    fb.Identity,
    fb.LeakyTanh,
    fb.Loc,
    fb.Permute,
    fb.Flip,
    fb.Power,
    fb.Reshape,
    fb.Scale,
    fb.Sigmoid,
    fb.SoftPlus,
    fb.Tanh,
)
# Of these, what maps the real line onto itself whatever its parameters, traced ones included.
_ONTO = (fb.Affine, fb.Identity, fb.LeakyTanh, fb.Loc, fb.Permute, fb.Flip, fb.Reshape, fb.Scale)
_WRAPPERS = (fb.Invert, fb.Vmap, fb.EmbedCondition, fb.NumericalInverse)

Box = tuple[np.ndarray, np.ndarray]


def image_of_support(bijection: Any, latent: Distribution) -> constraints.Constraint | None:
    """Where ``T(z)`` lives for z in the support of `latent`; None when it cannot be told."""
    box = _box_of(latent)
    if box is None:
        return None
    try:
        with jax.ensure_compile_time_eval():  # also where a traced model builds the prior
            image = _image(bijection, box)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return None
    return None if image is None else _constraint(*image)


def is_real(support: Any) -> bool:
    """Whether a constraint is that of all real numbers, with any event dimensions."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def disagree(found: Any, declared: Any) -> bool:
    """Whether two constraints are known to be of different sets."""
    if is_real(found) or is_real(declared):
        return is_real(found) != is_real(declared)
    try:
        bounds = [_bounds(found), _bounds(declared)]
    except jax.errors.TracerArrayConversionError:
        return False
    if bounds[0] is None or bounds[1] is None:
        return False
    try:  # bounds that were computed have rounding
        pairs = zip(*bounds, strict=True)
        return not all(np.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in pairs)
    except ValueError:  # of different shapes
        return True


def _bounds(support: Any) -> Box | None:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.real:
        return np.asarray(-np.inf), np.asarray(np.inf)
    low, high = getattr(support, "lower_bound", -np.inf), getattr(support, "upper_bound", np.inf)
    if not (hasattr(support, "lower_bound") or hasattr(support, "upper_bound")):
        return None
    return np.asarray(low), np.asarray(high)


def _box_of(latent: Distribution) -> Box | None:
    bounds, shape = _bounds(latent.support), latent.event_shape
    if bounds is None:
        return None
    return np.broadcast_to(bounds[0], shape), np.broadcast_to(bounds[1], shape)


def _is_real(box: Box) -> bool:
    return bool(np.all(np.isneginf(box[0])) and np.all(np.isposinf(box[1])))


def _image(bijection: Any, box: Box) -> Box | None:
    if isinstance(bijection, fb.Chain):
        for part in bijection.bijections:
            image = _image(part, box)
            if image is None:
                return None
            box = image
        return box
    if isinstance(bijection, (fb.Concatenate, fb.Stack)):
        return _image_of_pieces(bijection, box)
    if _is_real(box) and isinstance(bijection, _ONTO):
        return box
    if _is_elementwise(bijection):
        with np.errstate(all="ignore"):
            corners = [np.asarray(bijection.transform(jnp.asarray(c))) for c in box]
        if any(np.isnan(c).any() for c in corners):
            return None
        return np.minimum(*corners), np.maximum(*corners)
    # couplings, autoregressive and triangular maps, planar layers: onto the whole space, if the
    # space is what they are given
    return box if _is_real(box) else None


def _image_of_pieces(bijection: Any, box: Box) -> Box | None:
    joins = isinstance(bijection, fb.Concatenate)
    axis, parts = bijection.axis, bijection.bijections
    if joins:
        edges = np.cumsum([part.shape[axis] for part in parts])[:-1]
        pieces = [np.split(corner, edges, axis) for corner in box]
    else:
        pieces = [list(np.moveaxis(corner, axis, 0)) for corner in box]
    images = [
        _image(part, piece) for part, piece in zip(parts, zip(*pieces, strict=True), strict=True)
    ]
    if any(image is None for image in images):
        return None
    put = np.concatenate if joins else np.stack
    low, high = (put([image[side] for image in images if image], axis) for side in (0, 1))
    return low, high


def _is_elementwise(bijection: Any) -> bool:
    if bijection.cond_shape is not None:
        return False
    if isinstance(bijection, _WRAPPERS):
        return _is_elementwise(bijection.bijection)
    if isinstance(bijection, fb.Chain):
        return all(map(_is_elementwise, bijection.bijections))
    return isinstance(bijection, _ELEMENTWISE)


def _constraint(low: np.ndarray, high: np.ndarray) -> constraints.Constraint | None:
    if _is_real((low, high)):
        return constraints.real
    if np.isneginf(low).any() != np.isneginf(low).all():
        return None
    if np.isposinf(high).any() != np.isposinf(high).all():
        return None
    a, b = _scalar(low), _scalar(high)
    if np.isposinf(high).all():
        return constraints.positive if np.all(low == 0) else constraints.greater_than(a)
    if np.isneginf(low).all():
        return constraints.less_than(b)
    if np.all(low == 0) and np.all(high == 1):
        return constraints.unit_interval
    return constraints.interval(a, b)


def _scalar(bound: np.ndarray) -> Any:
    return float(bound.flat[0]) if np.all(bound == bound.flat[0]) else bound
