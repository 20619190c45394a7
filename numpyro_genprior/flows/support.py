"""The image of a box under a FlowJAX bijection, as a NumPyro constraint."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flowjax import bijections as fb
from flowjax.bijections import AbstractBijection
from numpyro.distributions import Distribution, constraints

# Bijections that apply a monotone function to each entry, or only reorder the entries: the image of
# a box is the box between the images of its corners.
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
# Those that map the real line onto itself whatever their parameters, traced ones included.
_ONTO = (fb.Affine, fb.Identity, fb.LeakyTanh, fb.Loc, fb.Permute, fb.Flip, fb.Reshape, fb.Scale)
_WRAPPERS = (fb.Invert, fb.Vmap, fb.EmbedCondition, fb.NumericalInverse)

Box = tuple[np.ndarray, np.ndarray]


def image_of_support(
    bijection: AbstractBijection, latent: Distribution
) -> constraints.Constraint | None:
    """The set of ``T(z)`` for z in the support of `latent`; None if it is unknown."""
    box = _box_of(latent)
    if box is None:
        return None
    try:
        with jax.ensure_compile_time_eval():  # also if a traced model builds the prior
            image = _image(bijection, box)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return None
    return None if image is None else _constraint(*image)


def is_real(support: constraints.Constraint | None) -> bool:
    """Whether a constraint is the real one, with any number of event dimensions."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def disagree(found: constraints.Constraint | None, declared: constraints.Constraint) -> bool:
    """Whether two constraints are known to describe different sets."""
    if is_real(found) or is_real(declared):
        return is_real(found) != is_real(declared)
    try:
        bounds = [_bounds(found), _bounds(declared)]
    except jax.errors.TracerArrayConversionError:
        return False
    if bounds[0] is None or bounds[1] is None:
        return False
    try:  # computed bounds have rounding errors
        pairs = zip(*bounds, strict=True)
        return not all(np.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in pairs)
    except ValueError:  # different shapes
        return True


def _bounds(support: constraints.Constraint | None) -> Box | None:
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


def _image(bijection: AbstractBijection, box: Box) -> Box | None:
    if isinstance(bijection, fb.Chain):
        for part in bijection.bijections:
            image = _image(part, box)  # pyright: ignore (the bijection is unwrapped)
            if image is None:
                return None
            box = image
        return box
    if isinstance(bijection, (fb.Concatenate, fb.Stack)):
        return _image_of_parts(bijection, box)
    if _is_real(box) and isinstance(bijection, _ONTO):
        return box
    if _is_elementwise(bijection):
        with np.errstate(all="ignore"):
            corners = [np.asarray(bijection.transform(jnp.asarray(c))) for c in box]
        if any(np.isnan(c).any() for c in corners):
            return None
        return np.minimum(*corners), np.maximum(*corners)
    # Couplings, autoregressive and triangular maps and planar layers map the whole space onto
    # itself; the image of a part of it is unknown.
    return box if _is_real(box) else None


def _image_of_parts(bijection: fb.Concatenate | fb.Stack, box: Box) -> Box | None:
    concatenates = isinstance(bijection, fb.Concatenate)
    axis, parts = bijection.axis, bijection.bijections
    if concatenates:
        edges = np.cumsum([part.shape[axis] for part in parts])[:-1]
        slices = [np.split(corner, edges, axis) for corner in box]
    else:
        slices = [list(np.moveaxis(corner, axis, 0)) for corner in box]
    images = [
        _image(part, piece) for part, piece in zip(parts, zip(*slices, strict=True), strict=True)
    ]
    if any(image is None for image in images):
        return None
    join = np.concatenate if concatenates else np.stack
    low, high = (join([image[side] for image in images if image], axis) for side in (0, 1))
    return low, high


def _is_elementwise(bijection: AbstractBijection) -> bool:
    if bijection.cond_shape is not None:
        return False
    if isinstance(bijection, _WRAPPERS):
        return _is_elementwise(bijection.bijection)
    if isinstance(bijection, fb.Chain):
        return all(_is_elementwise(part) for part in bijection.bijections)  # pyright: ignore
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


def _scalar(bound: np.ndarray) -> float | np.ndarray:
    return float(bound.flat[0]) if np.all(bound == bound.flat[0]) else bound
