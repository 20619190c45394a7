"""`AutoFisherLaplace`: a Gaussian guide, its precision the prior's plus the Fisher information."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.transforms import LowerCholeskyAffine, Transform
from numpyro.infer import init_to_median
from numpyro.infer.autoguide import AutoContinuous

from numpyro_genprior.errors import message
from numpyro_genprior.infer.event_covariance import EventCovariance
from numpyro_genprior.infer.map_result import MAPEstimate
from numpyro_genprior.infer.optimize.minimise import minimise
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.infer.whitening import LowRankAffine, Spectrum, fisher_whitening

Params = Mapping[str, jax.Array] | None


class AutoFisherLaplace(AutoContinuous):
    """Laplace approximation with the Fisher information in place of the Hessian.

    Under SVI the guide is a point, as in NumPyro's ``AutoLaplaceApproximation``, and finds the mode
    of the posterior in unconstrained coordinates u; for a latent under ``ngp.latent`` these are the
    latent itself. At the mode the guide is the Gaussian with precision ``B + JᵀJ``: B is minus
    the Hessian of the log prior (the identity for latents of priors, elsewhere clamped to be
    positive), J the whitened Jacobian of the likelihood's parameters.

    Parameters
    ----------
    model
        A NumPyro model, see `Posterior`.
    rank
        Number of directions in which the data narrow the prior. None: all of them, in a dense
        matrix, up to 1024 coordinates, and 128 beyond.
    prefix, init_loc_fn, create_plates
        As for NumPyro's autoguides.

    Attributes
    ----------
    params
        After `from_map`: the guide's parameters, which its methods then use by default.

    Raises
    ------
    ValueError
        If the Fisher information of an observed distribution is not known, by name.

    Warns
    -----
    UserWarning
        If the point is not a mode, so that the Gaussian is in the wrong place. If directions that
        the data determine are beyond `rank`.

    Notes
    -----
    **Density** exact, of the Gaussian: ``N(u; û, (B + JᵀJ)⁻¹)``. Where the likelihood's parameters
    are linear in u and the prior is Gaussian, it is the posterior. Elsewhere the precision is
    that of the Gauss-Newton approximation, positive definite everywhere. The dense form does not
    square a J that fits into memory; the low-rank one does not form J.

    **Fails when** the posterior has several modes (it knows one: see `find_map`) or is far from
    Gaussian: compare with NUTS.

    References
    ----------
    MacKay, A practical Bayesian framework for backpropagation networks, Neural Computation 1992.
    Martens, New insights and perspectives on the natural gradient method, JMLR 2020.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(y):
    ...     x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.tile(z, 2), 2))
    ...     numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)
    >>> guide = ngp.infer.AutoFisherLaplace(model)
    >>> svi = numpyro.infer.SVI(
    ...     guide.model, guide, numpyro.optim.Adam(0.1), numpyro.infer.Trace_ELBO()
    ... )
    >>> result = svi.run(jax.random.key(0), 200, jnp.ones(4), progress_bar=False)
    >>> abs(guide.get_transform(result.params).scale_tril.round(3))
    Array([[0.333, 0.   ],
           [0.   , 0.333]], dtype=float32)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        rank: int | None = None,
        prefix: str = "auto",
        init_loc_fn: Callable[..., Any] = init_to_median,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        self.rank, self.params = rank, None
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn, create_plates=create_plates)

    @classmethod
    def from_map(
        cls, estimate: MAPEstimate, *, rank: int | None = None, prefix: str = "auto"
    ) -> AutoFisherLaplace:
        """The guide at the best mode that `find_map` found.

        If a site's standard normal coordinates are not NumPyro's unconstrained ones, the two
        densities have different modes, and the guide's is searched for from the estimate.

        Parameters
        ----------
        estimate
            The result of `find_map`.
        rank, prefix
            As for the class.

        Returns
        -------
        AutoFisherLaplace
            With its `params` set.
        """
        posterior = estimate.posterior
        guide = cls(posterior.model, rank=rank, prefix=prefix)
        args, kwargs = posterior.arguments
        guide.set_up(*args, **kwargs)
        xi = guide.posterior.coordinates(estimate.values)
        if not np.array_equal(guide.posterior.standard_normal, posterior.standard_normal):
            xi = jax.jit(minimise)(guide.posterior, xi[None]).xi[0]
        guide.params = guide.params_at(xi)
        return guide

    def params_at(self, xi: Float[Array, " latent"]) -> dict[str, jax.Array]:
        """The guide's parameters at coordinates of its `posterior`."""
        return {f"{self.prefix}_loc": xi[..., self._order]}

    def set_up(self, *args: Any, **kwargs: Any) -> None:
        """Read the model given its arguments, as the first call of the guide does."""
        with numpyro.handlers.block(), numpyro.handlers.seed(rng_seed=0):
            self._setup_prototype(*args, **kwargs)

    # ---- NumPyro's interface ---------------------------------------------------------------------

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.posterior = Posterior(self.model, args, kwargs, unconstrained=True)
        layout = self.posterior.layout
        index = [np.arange(layout[name].start, layout[name].stop) for name in self._init_locs]
        # Positions of the guide's coordinates in the posterior's.
        self._order = np.concatenate(index)

    def _to_posterior(self, loc: jax.Array) -> jax.Array:
        return loc[..., np.argsort(self._order)]

    def _get_posterior(self) -> dist.Distribution:
        loc: Any = numpyro.param(f"{self.prefix}_loc", self._init_latent)
        return dist.Delta(loc, event_dim=1)

    def get_base_dist(self) -> dist.Distribution:
        return dist.Normal(jnp.zeros(self.latent_dim), 1).to_event(1)

    def get_transform(self, params: Params = None) -> Transform:
        """The affine map from standard normals to u.

        Returns
        -------
        Transform
            ``LowerCholeskyAffine``, or for a low rank `LowRankAffine`, with ``covariance()``.
        """
        return self._whiten(params)[0]

    def spectrum(self, params: Params = None) -> Spectrum:
        """Eigenvalues of the data's Fisher information, in units of the prior precision."""
        return self._whiten(params)[1]

    def _whiten(self, params: Params) -> tuple[Any, Spectrum]:
        xi = self._to_posterior(self._loc(params))
        transform, spectrum, excess = _whiten_at(self.posterior, xi, rank=self.rank)
        if not isinstance(excess, Tracer):
            self._warn(spectrum, float(excess), is_from_map=params is None)
        return _reorder(transform, self._order), spectrum

    def _warn(self, spectrum: Spectrum, excess: float, *, is_from_map: bool) -> None:
        if not excess < 0.1:
            remedy = (
                "Run SVI for longer, or start from find_map by from_map."
                if not is_from_map
                else "find_map ended there: before convergence (print its result), at a kink of a "
                "piecewise linear network (ReLU), where the gradient jumps, or where a scale tends "
                "to 0. Give find_map more steps in the first case; in the others the curvature at "
                "a point describes this posterior badly: sample it, e.g. with FisherNUTS."
            )
            warnings.warn(
                f"AutoFisherLaplace is not at a mode: by the local quadratic, a Newton step would "
                f"lower the energy by {excess:.3g} nats. {remedy}",
                stacklevel=4,
            )
        if float(spectrum.largest_discarded) > 1:
            warnings.warn(
                f"AutoFisherLaplace leaves out directions that the data determine: the largest "
                f"eigenvalue beyond rank {len(spectrum.eigenvalues)} is about "
                f"{float(spectrum.largest_discarded):.3g}, and above 1 matters. Raise rank.",
                stacklevel=4,
            )

    def _loc(self, params: Params) -> jax.Array:
        params = self.params if params is None else params
        if params is None:
            raise ValueError(
                message(
                    "AutoFisherLaplace has no parameters yet",
                    expected="params of SVI, or a guide made by from_map",
                    remedy="pass svi_result.params, or use "
                    "AutoFisherLaplace.from_map(ngp.infer.find_map(model, key, ...))",
                )
            )
        return params[f"{self.prefix}_loc"]

    def get_posterior(self, params: Params = None) -> dist.Distribution:
        """The Gaussian of u."""
        transform = self.get_transform(params)
        if isinstance(transform, LowerCholeskyAffine):
            return dist.MultivariateNormal(transform.loc, scale_tril=transform.scale_tril)
        return dist.TransformedDistribution(self.get_base_dist(), transform)

    def sample_posterior(
        self,
        rng_key: PRNGKeyArray,
        params: Params = None,
        *args: Any,
        sample_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> dict[str, jax.Array]:
        """Draws of all sites; events by the model itself, not its linearisation."""
        transform = self.get_transform(params)
        white = jax.random.normal(rng_key, (*sample_shape, self.latent_dim))
        with jax.numpy_rank_promotion("allow"):  # LowerCholeskyAffine relies on it
            latent = transform(white)
        return self._unpack_and_constrain(latent, self._params_or_default(params))

    def _params_or_default(self, params: Params) -> Any:
        return self.params if params is None else params

    def median(self, params: Params = None) -> dict[str, jax.Array]:
        """All sites at the mode; for latents this is their median."""
        return self._unpack_and_constrain(self._loc(params), self._params_or_default(params))

    def quantiles(
        self,
        params: Params = None,
        quantiles: ArrayLike = (0.05, 0.5, 0.95),  # pyright: ignore
    ) -> dict[str, jax.Array]:
        """Marginal quantiles of the latent sites, along a first dimension.

        Those of events have no closed form: use draws of `sample_posterior`.
        """
        transform: Any = self.get_transform(params)
        if isinstance(transform, LowerCholeskyAffine):
            scale = jnp.linalg.norm(transform.scale_tril, axis=-1)
        else:
            scale = jnp.sqrt(transform.variance())
        deviation = jax.scipy.special.ndtri(jnp.asarray(quantiles, scale.dtype))
        shift = jnp.multiply.outer(deviation, scale)
        latent = jnp.broadcast_to(transform.loc, shift.shape) + shift
        values = self._unpack_and_constrain(latent, self._params_or_default(params))
        return {name: value for name, value in values.items() if name in self._init_locs}

    # ---- in addition to NumPyro's interface ------------------------------------------------------

    def log_evidence(self, params: Params = None) -> jax.Array:
        """Laplace's log evidence: ``log p(y, û) + n/2 log 2π + ½ log|C|``.

        Exact if the posterior is Gaussian; otherwise the contribution of one mode. For a low rank,
        the contribution to log|C| of the discarded eigenvalues is known within bounds
        (`Spectrum`): the middle is used, with a warning if it may be wrong by more than half a
        nat.
        """
        xi = self._to_posterior(self._loc(params))
        transform, spectrum = self._whiten(params)
        half_log_det = transform.log_abs_det_jacobian(xi, xi)
        low, high = spectrum.log_det_discarded(self.latent_dim)
        half_log_det = half_log_det - 0.25 * (low + high)
        error = 0.25 * (high - low)
        if not isinstance(error, Tracer) and not error <= 0.5:
            warnings.warn(
                f"The log evidence of AutoFisherLaplace may be wrong by {float(error):.2g} nats, "
                f"because the eigenvalues beyond rank {len(spectrum.eigenvalues)} sum to "
                f"{float(spectrum.trace_discarded):.3g}. Raise rank.",
                stacklevel=2,
            )
        log_joint = jax.jit(Posterior.log_joint)(self.posterior, xi)
        return log_joint + 0.5 * self.latent_dim * math.log(2 * math.pi) + half_log_det

    def event_covariance(self, site: str, params: Params = None) -> EventCovariance:
        """Linearised covariance J_g C J_gᵀ of one site, e.g. an event, as an operator.

        Parameters
        ----------
        site
            Name of a latent or deterministic site.
        params
            The guide's parameters; None after `from_map`.

        Raises
        ------
        ValueError
            If there is no such site.
        """
        loc = self._loc(params)

        def event(u: jax.Array) -> jax.Array:
            values = self.posterior.values(self._to_posterior(u))
            if site not in values:
                raise ValueError(
                    message(
                        f"There is no site {site!r} whose covariance could be computed",
                        expected=f"one of {sorted(values)}",
                        remedy="an event is recorded under ngp.latent with record=True",
                    )
                )
            return values[site]

        return EventCovariance(event, loc, self.get_transform(params))


@functools.partial(jax.jit, static_argnames=("rank",))
def _whiten_at(posterior: Posterior, xi: jax.Array, *, rank: int | None) -> Any:
    """The whitening, and by how much a Newton step would lower the energy."""
    transform, spectrum = fisher_whitening(posterior, xi, rank=rank)
    gradient = jax.grad(posterior.energy)(xi)
    origin = transform(jnp.zeros_like(xi))
    pulled = jax.linear_transpose(lambda v: transform(v) - origin, xi)(gradient)[0]
    return transform, spectrum, 0.5 * jnp.sum(pulled**2)


def _reorder(
    transform: LowerCholeskyAffine | LowRankAffine, order: np.ndarray
) -> LowerCholeskyAffine | LowRankAffine:
    """The same map on coordinates in another order."""
    if np.array_equal(order, np.arange(len(order))):
        return transform
    if isinstance(transform, LowRankAffine):
        others = np.flatnonzero(np.isin(order, transform.others))
        index = np.searchsorted(transform.others, order[others])
        tril = transform.tril[np.ix_(index, index)]
        return LowRankAffine(
            transform.loc[order],
            transform.basis[order],
            transform.eigenvalues,
            tril=tril,
            others=tuple(map(int, others)),
        )
    rows = transform.scale_tril[order]
    upper = jnp.linalg.qr(rows.T, mode="r")
    sign = jnp.where(jnp.diagonal(upper) < 0, -1, 1).astype(upper.dtype)
    return LowerCholeskyAffine(
        transform.loc[order], (upper * jnp.broadcast_to(sign[:, None], upper.shape)).T
    )
