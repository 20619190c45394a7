"""`Posterior`: a model and its arguments as one pure object on flat coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.typing import ArrayLike
from numpyro.distributions.transforms import biject_to

from numpyro_genprior.errors import message
from numpyro_genprior.infer.coordinates import Unconstrained
from numpyro_genprior.infer.fisher import whitened_parameters
from numpyro_genprior.infer.layout import Layout, SiteSlice, read_layout
from numpyro_genprior.infer.linalg.limits import MAX_DENSE_METRIC
from numpyro_genprior.networks.static import Static
from numpyro_genprior.sites.likelihood import log_likelihood
from numpyro_genprior.sites.model_reader import Message, ModelSites, Trace
from numpyro_genprior.sites.wrappers import unwrap

MIN_PRECISION = 1e-6  # of the prior, for a coordinate that is not standard normal


class Posterior(eqx.Module):
    """The posterior of a NumPyro model on flat coordinates ξ, with ξ ~ N(0, I) under the prior.

    Everything in `numpyro_genprior.infer` is built on this object. It is a pytree whose leaves are
    the arrays among the model's arguments (weights of priors, data), and its methods are pure
    functions of one flat coordinate array: use ``jax.jit``, ``jax.vmap``, ``jax.grad`` on them,
    or on the object.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an exact
        density.
    args, kwargs
        Its arguments. Arrays become leaves; other values are static.
    unconstrained
        Use NumPyro's unconstrained coordinates for every site that is not a `StandardNormal`, as
        autoguides do. Otherwise coordinates are standard normal wherever the site's distribution
        allows it, see `numpyro_genprior.infer.coordinates`.

    Raises
    ------
    ValueError
        If a latent site is discrete, masked, scaled or subsampled, or if there is none.

    Notes
    -----
    **Density** exact: ``log p(ξ, y) = Σ log N(ξ; 0, 1) + Σ log p(u) + Σ log p(y | ξ)``, where u
    are the unconstrained coordinates (with the Jacobian of their transform) of the sites that have
    no standard normal ones.

    **Fails when** the model draws random numbers outside its sites: every evaluation then uses the
    same draw.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_genprior.infer import Posterior
    >>> def model(y):
    ...     scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    ...     numpyro.sample("y", dist.Normal(0.0, scale), obs=y)
    >>> posterior = Posterior(model, (jnp.array(1.0),))
    >>> posterior.size, f"{posterior.values(jnp.zeros(1))['scale']:.3f}"
    (1, '1.349')
    """

    _arrays: Any
    _static: Static = eqx.field(static=True)

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        unconstrained: bool = False,
    ) -> None:
        args, kwargs = tuple(args), dict(kwargs or {})
        layout = read_layout(model, args, kwargs, unconstrained=unconstrained)
        self._arrays, static = eqx.partition((args, kwargs), _is_array)
        leaves, treedef = jax.tree.flatten(static)
        self._static = Static((model, tuple(leaves), treedef, layout))

    # ---- model and layout ------------------------------------------------------------------------

    @property
    def model(self) -> Callable[..., Any]:
        """The NumPyro model."""
        return self._static.value[0]

    @property
    def layout(self) -> Layout:
        """The slice of each latent site in the flat array."""
        return self._static.value[3]

    @property
    def sites(self) -> ModelSites:
        """The sites of the model."""
        return self.layout.sites

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The model's arguments and keyword arguments."""
        _, leaves, treedef, _ = self._static.value
        return eqx.combine(self._arrays, jax.tree.unflatten(treedef, leaves))

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.layout.size

    @property
    def standard_normal(self) -> np.ndarray:
        """For each coordinate, whether its prior is a standard normal."""
        marks = [np.full(p.size, p.rule.standard_normal) for p in self.layout.slices]
        return np.concatenate(marks)

    def require_standard_normal(self, method: str) -> None:
        """Refuse sites without standard normal coordinates.

        Parameters
        ----------
        method
            Name of the inference method, for the message.

        Raises
        ------
        ValueError
            If there is one; the message names it.
        """
        others = [p for p in self.layout.slices if not p.rule.standard_normal]
        if others:
            remedy = (
                "write it as a function of a normal site (e.g. LogNormal for a scale), or use "
                "FisherNUTS"
            )
            rule = others[0].rule
            if isinstance(rule, Unconstrained) and rule.without_tfp:
                remedy = (
                    "install tensorflow_probability, which has its quantile function (pip install "
                    f"'numpyro-genprior[distrax]'), or {remedy}"
                )
            raise ValueError(
                message(
                    f"{method} needs standard normal coordinates",
                    expected="latents of priors, normals, or distributions with quantile functions",
                    got=f"site {others[0].name!r}, which has only unconstrained ones",
                    remedy=remedy,
                )
            )

    # ---- sites -----------------------------------------------------------------------------------

    def values(self, xi: jax.Array) -> dict[str, jax.Array]:
        """All latent and deterministic sites, by name, at coordinates `xi`."""
        trace = self.trace(xi)
        return {name: site["value"] for name, site in trace.items() if _is_kept(site)}

    def coordinates(self, values: Mapping[str, ArrayLike]) -> jax.Array:
        """Flat coordinates of values of the latent sites: the inverse of `values`.

        Parameters
        ----------
        values
            Values by name of site. Those of other sites are ignored.

        Raises
        ------
        ValueError
            If a latent site has no value.
        """
        missing = [p.name for p in self.layout.slices if p.name not in values]
        if missing:
            raise ValueError(
                message(
                    f"There is no value for latent site {missing[0]!r}",
                    expected=f"values for {[p.name for p in self.layout.slices]}",
                    got=f"values for {sorted(values)}",
                    remedy="give the latents (x_latent), not the events",
                )
            )
        given = {p.name: jnp.asarray(values[p.name]) for p in self.layout.slices}
        return self._flatten(self._run(numpyro.handlers.substitute(self.model, data=given)))

    def draw(self, key: jax.Array) -> jax.Array:
        """Coordinates of one draw from the prior."""
        draw_key, site_key = jax.random.split(key)
        xi = jax.random.normal(draw_key, (self.size,))
        if self.standard_normal.all():
            return xi
        trace = self.trace(xi, only_standard=True, key=site_key)
        return jnp.where(self.standard_normal, xi, self._flatten(trace))

    # ---- densities -------------------------------------------------------------------------------

    def log_terms(self, xi: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log prior density of the coordinates and log likelihood, from one trace of the model.

        ``numpyro.factor`` counts as likelihood.
        """
        trace = self.trace(xi)
        return self._log_prior(xi, trace), log_likelihood(trace)

    def log_prior(self, xi: jax.Array) -> jax.Array:
        """Log density of the coordinates under the prior."""
        return self._log_prior(xi, {} if self.standard_normal.all() else self.trace(xi))

    def log_likelihood(self, xi: jax.Array) -> jax.Array:
        """Log density of the data given the coordinates."""
        return log_likelihood(self.trace(xi))

    def log_joint(self, xi: jax.Array) -> jax.Array:
        """Log prior plus log likelihood: the log posterior up to the evidence."""
        prior, likelihood = self.log_terms(xi)
        return prior + likelihood

    def energy(self, xi: jax.Array) -> jax.Array:
        """Minus the log joint density."""
        return -self.log_joint(xi)

    def _log_prior(self, xi: jax.Array, trace: Trace) -> jax.Array:
        standard = self.standard_normal
        white = xi if standard.all() else jnp.where(standard, xi, 0)
        total = -0.5 * jnp.sum(white**2) - 0.5 * standard.sum() * math.log(2 * math.pi)
        for part in self.layout.slices:
            if not part.rule.standard_normal:
                total = total + _log_unconstrained(part.take(xi), trace[part.name])
        return total

    # ---- information -----------------------------------------------------------------------------

    def whitened(self, xi: jax.Array) -> jax.Array:
        """Likelihood parameters θ(ξ), whitened by their Fisher information F at `xi`.

        The Jacobian of this function at `xi` is ``F^(1/2) ∂θ/∂ξ``; its value by itself
        has no meaning. See `numpyro_genprior.infer.fisher`.

        Returns
        -------
        jax.Array
            Flat, with at least one entry for each observation.

        Raises
        ------
        ValueError
            If there is no rule for the distribution of an observed site.
        """
        trace = self.trace(xi)
        parts = []
        for name in self.layout.observed:
            site, fn = trace[name], trace[name]["fn"]
            options: Any = {"scale": site["scale"], "value": site["value"], "name": name}
            parts.append(whitened_parameters(fn, fn, **options))
        return jnp.concatenate(parts)

    def prior_precision(self, xi: jax.Array) -> jax.Array:
        """Minus the Hessian of the log prior, with eigenvalues of at least `MIN_PRECISION`.

        Returns
        -------
        jax.Array
            Of shape ``(k, k)`` for the k coordinates that are not standard normal (for these it
            is the identity), or its diagonal ``(k,)`` if k is above 256.
        """
        index = np.flatnonzero(~self.standard_normal)

        def log_prior(part: jax.Array) -> jax.Array:
            return self.log_prior(xi.at[index].set(part))

        part = xi[index]
        if len(index) > MAX_DENSE_METRIC:
            gradient = jax.grad(log_prior)

            def second_derivative(i: jax.Array) -> jax.Array:
                unit = jnp.zeros_like(part).at[i].set(1)
                return jax.jvp(gradient, (part,), (unit,))[1][i]

            return jnp.maximum(
                -jax.lax.map(second_derivative, jnp.arange(len(index))), MIN_PRECISION
            )
        eigenvalues, vectors = jnp.linalg.eigh(-jax.hessian(log_prior)(part))
        return (vectors * jnp.maximum(eigenvalues, MIN_PRECISION)[None, :]) @ vectors.T

    def linearise(self, xi: jax.Array) -> Linearised:
        """The whitened Jacobian and the metric at `xi`, as matrix-vector products."""
        return Linearised(self, xi)

    # ---- running the model -----------------------------------------------------------------------

    def trace(
        self, xi: jax.Array, *, only_standard: bool = False, key: jax.Array | int = 0
    ) -> Trace:
        """NumPyro's trace of the model at coordinates `xi`.

        Parameters
        ----------
        xi
            Flat coordinates.
        only_standard
            Draw the sites without standard normal coordinates from their priors.
        key
            Random key for these draws.
        """
        layout = self.layout

        def value(site: Message) -> jax.Array | None:
            if site["type"] != "sample" or site["is_observed"] or site["name"] not in layout:
                return None
            part = layout[site["name"]]
            if only_standard and not part.rule.standard_normal:
                return None
            site_xi, core = part.take(xi), unwrap(site["fn"])
            step = site["infer"].get("_scan_current_index")
            with jax.numpy_rank_promotion("allow"):  # NumPyro's distributions rely on it
                return part.rule.value(core, site_xi if step is None else site_xi[step])

        return self._run(numpyro.handlers.substitute(self.model, substitute_fn=value), key)

    def _run(self, model: Callable[..., Any], key: jax.Array | int = 0) -> Trace:
        args, kwargs = self.arguments
        with numpyro.handlers.block():
            seeded = numpyro.handlers.seed(model, key)
            return numpyro.handlers.trace(seeded).get_trace(*args, **kwargs)

    def _flatten(self, trace: Trace) -> jax.Array:
        with jax.numpy_rank_promotion("allow"):
            parts = [
                part.rule.coordinates(unwrap(trace[part.name]["fn"]), trace[part.name]["value"])
                for part in self.layout.slices
            ]
        return jnp.concatenate([jnp.ravel(part) for part in parts])


class Linearised:
    """A posterior linearised at one point: J = F^(1/2) ∂θ/∂ξ and the metric, matrix-free.

    The metric is ``prior precision + JᵀJ``: the identity plus the Fisher information, where all
    coordinates are standard normal. The model is linearised once; a product with the metric then
    costs one forward and one transposed pass.

    Parameters
    ----------
    posterior
        The posterior to linearise.
    xi
        The point, flat coordinates.

    Attributes
    ----------
    num_rows
        Number of rows of J.
    """

    def __init__(self, posterior: Posterior, xi: jax.Array) -> None:
        self.posterior, self.xi = posterior, xi
        whitened, self.matvec = jax.linearize(posterior.whitened, xi)
        self.num_rows = whitened.shape[0]
        self._transposed = jax.linear_transpose(self.matvec, xi)
        standard = posterior.standard_normal
        self._others = np.flatnonzero(~standard)
        self.precision = None if standard.all() else posterior.prior_precision(xi)

    matvec: Callable[[jax.Array], jax.Array]
    """J v."""

    def rmatvec(self, w: jax.Array) -> jax.Array:
        """Jᵀ w."""
        return self._transposed(w)[0]

    def fisher(self, v: jax.Array) -> jax.Array:
        """JᵀJ v: the Fisher information of the data about the coordinates."""
        return self.rmatvec(self.matvec(v))

    def prior(self, v: jax.Array) -> jax.Array:
        """The prior precision times v."""
        if self.precision is None:
            return v
        part = v[self._others]
        product = self.precision @ part if self.precision.ndim == 2 else self.precision * part
        return v.at[self._others].set(product, unique_indices=True)

    def metric(self, v: jax.Array) -> jax.Array:
        """(Prior precision + JᵀJ) v."""
        return self.prior(v) + self.fisher(v)

    def dense(self) -> jax.Array:
        """The metric as a matrix of shape ``(size, size)``, by ``size`` forward passes."""
        unit = jnp.eye(self.posterior.size, dtype=self.xi.dtype)
        rows = jax.vmap(self.matvec)(unit)
        return jax.vmap(self.prior)(unit) + rows @ rows.T


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _is_kept(site: Message) -> bool:
    if site["type"] == "deterministic":
        return True
    return site["type"] == "sample" and not site["is_observed"]


def _log_unconstrained(u: jax.Array, site: Message) -> jax.Array:
    """Log density of a site's unconstrained coordinates."""
    fn = site["fn"]
    with jax.numpy_rank_promotion("allow"):
        transform = biject_to(unwrap(fn).support)
        log_det = transform.log_abs_det_jacobian(u, transform(u))
        return jnp.sum(fn.log_prob(site["value"])) + jnp.sum(log_det)


__all__ = ["Linearised", "SiteSlice", "Posterior"]


site_values = eqx.filter_jit(Posterior.values)
"""`Posterior.values`, compiled."""
