"""`MarginalNormal`: a likelihood that allows for the error of the generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.operators.operator import Operator, require_shape
from numpyro_genprior.priors.vectorise import vectorise


class MarginalNormal(Distribution):
    """Distribution of ``y = A x + σ ε`` for ``x = m + τ ξ``, with white noise ε and ξ.

    The likelihood for a generator that misses the truth by τ per pixel: m = g(z) is the generated
    image, τ the root mean square difference between a held-out event and the best generated one
    (`estimate_event_scale`, or the scale of a `VAEPrior`), σ the noise of the instrument. With
    τ = 0 it would be the usual likelihood, which fits what the generator cannot generate as if it
    were signal, and is overconfident.

    Parameters
    ----------
    operator
        A, an `Operator`.
    event_loc
        m, of shape ``(..., *operator.event_shape)``. Leading dimensions become batch dimensions.
    event_scale
        τ, positive, in units of the event; a number, or one for each element of the batch. It may
        be a latent site.
    noise_scale
        σ, positive, in units of the data; likewise.

    Raises
    ------
    TypeError
        If `operator` is not an `Operator`.
    ValueError
        If shapes do not fit, or a scale is not positive.

    Notes
    -----
    **Density** exact: ``y ~ N(A m, K)``, ``K = σ² I + τ² A Aᵀ``. With ``A Aᵀ = U diag(λ) Uᵀ``
    (computed once, by the operator), ``c = Uᵀ (y - A m)`` and ``d = σ² + τ² λ``,
    ``log p(y) = -½ Σ (c²/d + log d + log 2π)``. No matrix is factored, whatever τ and σ are.

    The event can be recovered: ``x | y ~ N(m + τ² Aᵀ K⁻¹ (y - A m), τ² I - τ⁴ Aᵀ K⁻¹ A)``, see
    `event_mean` and `sample_event`.

    **Fails when** the error of the generator is not white. Missing strokes are correlated: in data
    that sum over many pixels (a strong blur, few random projections) white noise averages out, but
    they do not. Inside ``scan``, each step keeps a copy of the operator.

    References
    ----------
    Kaipio, Somersalo, Statistical and computational inverse problems, 2005, 5.8 (approximation
    errors). Bora, Jalal, Price, Dimakis, 2017 (representation error).

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> A = ngp.operators.Mask(jnp.array([True, True, False]))
    >>> marginal = ngp.operators.MarginalNormal(A, jnp.zeros(3), event_scale=0.3, noise_scale=0.4)
    >>> marginal.variance, [f"{x:.2f}" for x in marginal.event_mean(jnp.array([1.0, 2.0]))]
    (Array([0.25, 0.25], dtype=float32), ['0.36', '0.72', '0.00'])
    >>> marginal.sample_event(jax.random.key(0), jnp.array([1.0, 2.0]), (5,)).shape
    (5, 3)
    """

    # For vectors; each instance overrides them for the number of its event dimensions.
    arg_constraints = {
        "event_loc": constraints.real_vector,
        "event_scale": constraints.positive,
        "noise_scale": constraints.positive,
    }
    reparametrized_params = ["event_loc", "event_scale", "noise_scale"]
    pytree_data_fields = ("operator", "event_loc", "event_scale", "noise_scale")
    pytree_aux_fields = ("_ndims",)

    operator: Operator
    event_loc: jax.Array
    event_scale: jax.Array
    noise_scale: jax.Array
    _ndims: _Dimensions

    def __init__(
        self,
        operator: Operator,
        event_loc: ArrayLike,
        *,
        event_scale: ArrayLike,
        noise_scale: ArrayLike,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(operator, Operator):
            raise TypeError(
                message(
                    "MarginalNormal needs an operator",
                    expected="an ngp.operators.Operator",
                    got=type(operator).__name__,
                    remedy="wrap a matrix: ngp.operators.Dense(A, event_shape=prior.event_shape)",
                )
            )
        loc = require_shape(event_loc, operator.event_shape, "event_loc")
        scales = [_scale(event_scale, "event_scale"), _scale(noise_scale, "noise_scale")]
        lead = loc.shape[: loc.ndim - len(operator.event_shape)]
        try:
            batch_shape = jnp.broadcast_shapes(lead, *(scale.shape for scale in scales))
        except ValueError as error:
            raise ValueError(
                message(
                    "The scales of MarginalNormal do not fit the batch of event_loc",
                    expected=f"numbers, or arrays that broadcast with {lead}",
                    got=[scale.shape for scale in scales],
                    remedy="scales have no event dimensions; for one of each pixel see "
                    "ngp.operators.Diagonal",
                )
            ) from error
        # All get the same number of batch dimensions, so that those of scan and vmap come in front.
        self.operator = operator
        self.event_loc = _prepend_dimensions(loc, len(lead), len(batch_shape))
        self.event_scale, self.noise_scale = (
            _prepend_dimensions(scale, scale.ndim, len(batch_shape)) for scale in scales
        )
        leaves = tuple(jnp.ndim(leaf) for leaf in jax.tree.leaves(operator))
        self._ndims = _Dimensions(len(operator.event_shape), leaves)
        self.arg_constraints = _constraints(self._ndims.event)
        super().__init__(batch_shape, operator.data_shape, validate_args=validate_args)

    @classmethod
    def tree_unflatten(cls, aux_data: tuple[Any, ...], params: tuple[Any, ...]) -> Any:
        new: Any = super().tree_unflatten(aux_data, params)
        new.arg_constraints = _constraints(new._ndims.event)
        return new

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_dim)

    # ---- the distribution of the data ------------------------------------------------------------

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw data of shape ``sample_shape + batch_shape + event_shape``."""
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        white = jax.random.normal(validation.random_key(key), shape, self._dtype())

        def draw(element: _BatchElement, white: jax.Array) -> jax.Array:
            return element.data_mean + element.gram.synthesise(
                jnp.sqrt(element.variances) * element.gram.analyse(white)
            )

        return self.over_batch(draw, [(white, self.event_dim)], self.event_dim)

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: list | None = None) -> jax.Array:
        """Log density of data of shape ``(..., *event_shape)``."""
        value = require_shape(value, self.event_shape, "Data")

        def log_prob(element: _BatchElement, y: jax.Array) -> jax.Array:
            c = element.gram.analyse(y - element.data_mean)
            d = element.variances
            return -0.5 * (jnp.sum(c**2 / d + jnp.log(d)) + d.size * math.log(2 * math.pi))

        return self.over_batch(log_prob, [(value, self.event_dim)], 0)

    @property
    def mean(self) -> jax.Array:
        """``A m``."""
        mean = self.over_batch(lambda element: element.data_mean, [], self.event_dim)
        return jnp.broadcast_to(mean, self.batch_shape + self.event_shape)

    @property
    def variance(self) -> jax.Array:
        """``σ² + τ² diag(A Aᵀ)``."""

        def variance(element: _BatchElement) -> jax.Array:
            return element.noise_scale**2 + element.event_scale**2 * element.gram.diagonal()

        variances = self.over_batch(variance, [], self.event_dim)
        return jnp.broadcast_to(variances, self.batch_shape + self.event_shape)

    def whiten(self, residual: ArrayLike) -> jax.Array:
        """``K^(-1/2) r`` with the symmetric root: white noise, if r has the covariance K.

        Parameters
        ----------
        residual
            Differences of data, of shape ``(..., *event_shape)``.
        """
        residual = require_shape(residual, self.event_shape, "Data")

        def whiten(element: _BatchElement, r: jax.Array) -> jax.Array:
            return element.gram.synthesise(element.gram.analyse(r) / jnp.sqrt(element.variances))

        return self.over_batch(whiten, [(residual, self.event_dim)], self.event_dim)

    # ---- the event given the data ----------------------------------------------------------------

    def event_mean(self, data: ArrayLike) -> jax.Array:
        """Mean of the event given data: ``m + τ² Aᵀ K⁻¹ (y - A m)``.

        Parameters
        ----------
        data
            y, of shape ``(..., *event_shape)``.

        Returns
        -------
        jax.Array
            Of shape ``(..., *operator.event_shape)``, broadcast with the batch shape.
        """
        data = require_shape(data, self.event_shape, "Data")
        dims = len(self.operator.event_shape)
        return self.over_batch(
            lambda element, y: element.updated(element.event_loc, y), [(data, self.event_dim)], dims
        )

    def sample_event(
        self, key: jax.Array, data: ArrayLike, sample_shape: tuple[int, ...] = ()
    ) -> jax.Array:
        """Draw the event given data, exactly.

        By Matheron's rule: ``x₀ + τ² Aᵀ K⁻¹ (y - A x₀ - σ ε)`` for ``x₀ = m + τ ξ``. With the
        decoded draws of a posterior as `event_loc`, the result is one draw of the event for each.

        Parameters
        ----------
        key
            Random key.
        data
            y, of shape ``(..., *event_shape)``.
        sample_shape
            Draws of the event for each element of the batch.

        Returns
        -------
        jax.Array
            Of shape ``sample_shape + batch_shape + operator.event_shape``, where the leading
            dimensions of `data` broadcast with the batch shape.

        References
        ----------
        Journel, Huijbregts, Mining geostatistics, 1978. Doucet, A note on efficient conditional
        simulation of Gaussian distributions, 2010.
        """
        data = require_shape(data, self.event_shape, "Data")
        lead = jnp.broadcast_shapes(data.shape[: data.ndim - self.event_dim], self.batch_shape)
        lead = (*sample_shape, *lead)
        keys = jax.random.split(validation.random_key(key))
        xi = jax.random.normal(keys[0], (*lead, *self.operator.event_shape), self._dtype())
        noise = jax.random.normal(keys[1], (*lead, *self.event_shape), self._dtype())
        dims = len(self.operator.event_shape)

        def draw(
            element: _BatchElement, y: jax.Array, xi: jax.Array, noise: jax.Array
        ) -> jax.Array:
            x0 = element.event_loc + element.event_scale * xi
            return element.updated(x0, y - element.noise_scale * noise)

        arguments = [(data, self.event_dim), (xi, dims), (noise, self.event_dim)]
        return self.over_batch(draw, arguments, dims)

    # ---- batching --------------------------------------------------------------------------------

    def _dtype(self) -> Any:
        return jnp.result_type(self.event_loc, self.event_scale, self.noise_scale)

    def over_batch(
        self, function: Callable[..., Any], arguments: list[tuple[jax.Array, int]], output: int
    ) -> jax.Array:
        """Map ``function(element, *arguments)`` over leading dimensions, the batch shape included.

        The operator has leading dimensions only under ``scan`` and ``vmap``, and then in front.
        """
        leaves, structure = jax.tree.flatten(self.operator)
        ndims, batch_ndim = self._ndims.leaves, len(self.batch_shape)
        parameters = [
            (_append_dimensions(leaf, ndim, batch_ndim), ndim)
            for leaf, ndim in zip(leaves, ndims, strict=True)
        ]
        parameters += [(self.event_loc, len(self.operator.event_shape))]
        parameters += [(self.event_scale, 0), (self.noise_scale, 0)]

        def one(*parts: jax.Array) -> jax.Array:
            operator = jax.tree.unflatten(structure, parts[: len(leaves)])
            element = _BatchElement(operator, *parts[len(leaves) : len(parameters)])
            return function(element, *parts[len(parameters) :])

        return vectorise(one, parameters + arguments, [output])


class _Dimensions(NamedTuple):
    """Number of dimensions of one event and of the operator's arrays, without batch."""

    event: int
    leaves: tuple[int, ...]


def _constraints(event_ndim: int) -> dict[str, Any]:
    loc = constraints.independent(constraints.real, event_ndim)
    return MarginalNormal.arg_constraints | {"event_loc": loc}


class _BatchElement:
    """The parameters of one element of the batch."""

    def __init__(
        self,
        operator: Operator,
        event_loc: jax.Array,
        event_scale: jax.Array,
        noise_scale: jax.Array,
    ) -> None:
        self.operator, self.gram = operator, operator.gram
        self.event_loc, self.event_scale, self.noise_scale = event_loc, event_scale, noise_scale

    @property
    def data_mean(self) -> jax.Array:
        return self.operator(self.event_loc)

    @property
    def variances(self) -> jax.Array:
        """Eigenvalues of K."""
        return self.noise_scale**2 + self.event_scale**2 * self.gram.eigenvalues

    def updated(self, event: jax.Array, y: jax.Array) -> jax.Array:
        """``event + τ² Aᵀ K⁻¹ (y - A event)``."""
        c = self.gram.analyse(y - self.operator(event)) / self.variances
        return event + self.event_scale**2 * self.operator.adjoint(self.gram.synthesise(c))


def _scale(value: ArrayLike, name: str) -> jax.Array:
    scale = jnp.asarray(value)
    if not jnp.issubdtype(scale.dtype, jnp.floating):
        scale = scale.astype(jnp.result_type(float))
    if not isinstance(scale, Tracer) and not bool(np.all(np.asarray(scale) > 0)):
        raise ValueError(
            message(
                f"The {name} of MarginalNormal is not positive",
                expected="a standard deviation above zero",
                got=float(np.min(np.asarray(scale))),
                remedy="without any error of the generator observe with dist.Normal"
                if name == "event_scale"
                else "pass the standard deviation of the instrument's noise",
            )
        )
    return scale


def _prepend_dimensions(array: jax.Array, present: int, wanted: int) -> jax.Array:
    """Prepend dimensions of size 1 to `present` leading dimensions, up to `wanted`."""
    return array.reshape((1,) * (wanted - present) + array.shape)


def _append_dimensions(leaf: jax.Array, ndim: int, batch_ndim: int) -> jax.Array:
    """Append dimensions of size 1 to the batch dimensions of a leaf, if it has any."""
    extra = jnp.ndim(leaf) - ndim
    if not extra:
        return leaf
    shape = jnp.shape(leaf)
    return jnp.reshape(leaf, shape[:extra] + (1,) * (batch_ndim - extra) + shape[extra:])
