"""`lipschitz`: how steep a generator is, and how many kinks it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.prior.jaxpr_lipschitz import layer_bound, rectified
from numpyro_genprior.diagnostics.prior.prior_posterior import bare_prior, generator, prior_draws
from numpyro_genprior.errors import message
from numpyro_genprior.infer.linalg.subspace_iteration import leading_subspace
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

BLOCK_SIZE, NUM_ITERATIONS = 4, 20  # of the subspace iteration for the largest singular value
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
POINTS_PER_SEGMENT = 64  # between two latents, at which the signs of rectifiers are compared
DEFAULT_SEGMENTS = 3  # between successive draws, along which kinks are counted without `path`


@dataclass(frozen=True, repr=False, eq=False)
class Lipschitz(Result):
    """Local Lipschitz constants of a generator over prior draws. Print it to read the finding.

    Attributes
    ----------
    values
        Largest singular value of the Jacobian at each draw, in event units (or units of the
        operator's output) per prior standard deviation.
    bound
        Product of the layers' norms and the activations' slopes: no slope anywhere exceeds it.
        Infinite if the network has an operation without a known bound.
    unbounded
        The first such operation; empty if there is none.
    kinks
        Average number of rectifiers that change sign per unit of latent length; None without
        rectifiers.
    """

    values: Float[Array, " draws"]
    bound: float
    unbounded: str
    kinks: float | None

    @property
    def max(self) -> float:
        """The largest of the local constants: a lower bound on the Lipschitz constant."""
        return float(jnp.max(self.values))

    @property
    def quantiles(self) -> dict[float, float]:
        """Quantiles of the local constants over draws, at 5, 25, 50, 75 and 95 %."""
        return {level: float(jnp.quantile(self.values, level)) for level in LEVELS}

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if there is no upper bound."""
        if math.isfinite(self.bound):
            return ()
        return (f"There is no upper bound, because none is known for {self.unbounded}.",)

    def __str__(self) -> str:
        quantiles = self.quantiles
        lines = [
            f"Local Lipschitz constants over {len(self.values)} prior draws: median "
            f"{quantiles[0.5]:.3g}, 5 to 95 % {quantiles[0.05]:.3g} to {quantiles[0.95]:.3g}, "
            f"largest {self.max:.3g}."
        ]
        if math.isfinite(self.bound):
            ratio = self.bound / self.max if self.max > 0 else 1.0
            lines.append(
                f"  never above {self.bound:.3g} (product of the layers' norms: {ratio:.1f} times "
                "the largest seen)"
            )
        if self.kinks:
            lines.append(
                f"  {self.kinks:.0f} kinks per unit of latent length (rectifiers that change "
                "sign): HMC loses accuracy at each, so expect shorter steps than the curvature "
                "alone would require"
            )
        lines += self.warnings
        lines.append(
            "Two latents can be distinguished if the noise is below the largest constant times "
            "their distance; constants at other draws may be larger."
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        kinks = "" if self.kinks is None else f", kinks={self.kinks:.3g}"
        return f"Lipschitz(max={self.max:.3g}, bound={self.bound:.3g}{kinks})"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw `numpyro_genprior.plots.lipschitz`."""
        from numpyro_genprior import plots

        return plots.lipschitz(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """The local constants by ``draw``, their quantiles by ``level``, and the bound."""
        kinks = {} if self.kinks is None else {"kinks": ((), self.kinks)}
        return dataset(
            {
                "values": (("draw",), self.values),
                "quantiles": (("level",), list(self.quantiles.values())),
                "bound": ((), self.bound),
                **kinks,
            },
            coords={"level": list(LEVELS)},
            attrs={"unbounded": self.unbounded},
        )


def lipschitz(
    prior: Distribution,
    key: jax.Array,
    *,
    num_draws: int = 64,
    operator: Callable[[jax.Array], ArrayLike] | None = None,
    path: ArrayLike | None = None,
) -> Lipschitz:
    """Local Lipschitz constants of g, or of A ∘ g, over prior draws.

    At each draw the largest singular value of the Jacobian, by subspace iteration with
    Jacobian-vector products (4 vectors, 20 iterations), in coordinates that are standard normal
    under the prior. The upper bound is the product over layers of spectral norms and activation
    slopes; it is read off the jaxpr, whatever library the network comes from, if all its
    operations are known.

    Parameters
    ----------
    prior
        A prior with an empty batch shape.
    key
        Random key of the draws.
    num_draws
        Number of draws.
    operator
        A: a differentiable function of the event. None: the event itself.
    path
        Successive latents along which kinks are counted, of shape ``(points, size)``: a chain of
        ``x_latent``, a leapfrog trajectory. None: straight lines between successive draws.

    Returns
    -------
    Lipschitz
        ``.max``, ``.quantiles``, ``.bound``, ``.kinks``; ``print`` states the finding.

    Raises
    ------
    TypeError
        If `prior` is not a prior.
    ValueError
        If `prior` has a batch shape, `num_draws` is below 2, or `path` has the wrong shape.

    Notes
    -----
    **Fails when** the largest singular values lie close together: the iteration then gives a value
    slightly too small. Draws miss steep regions of low probability; the bound does not, and may be
    far too large.

    References
    ----------
    Szegedy et al., Intriguing properties of neural networks, 2014. Bora, Jalal, Price, Dimakis,
    Compressed sensing using generative models, 2017 (measurements needed grow with log L).

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.GANPrior(lambda z: jnp.tanh(jnp.array([[3.0, 0.0], [0.0, 0.5]]) @ z), 2)
    >>> found = ngp.diagnostics.lipschitz(prior, jax.random.key(0))
    >>> found.max <= found.bound, round(found.bound, 3)
    (True, 3.0)
    """
    core = bare_prior(prior, "lipschitz")
    if num_draws < 2:
        raise ValueError(
            message(
                "lipschitz needs prior draws",
                expected="num_draws of at least 2",
                got=num_draws,
                remedy="leave num_draws=64",
            )
        )
    posterior = generator(core)
    points = prior_draws(posterior, validation.random_key(key), num_draws)
    operator = _identity if operator is None else operator
    values = _largest_singular_values(posterior, points, operator)

    def composed(xi: jax.Array) -> jax.Array:
        return jnp.asarray(operator(posterior.values(xi)["x"]))

    bound, unbounded = layer_bound(composed, posterior.size)
    return Lipschitz(values, bound, unbounded, _kinks(posterior, _path(posterior, points, path)))


def _identity(x: jax.Array) -> jax.Array:
    return x


def _path(posterior: Posterior, points: jax.Array, path: ArrayLike | None) -> jax.Array:
    if path is None:
        return points[: DEFAULT_SEGMENTS + 1]
    given = jnp.asarray(path, points.dtype)
    if given.ndim != 2 or given.shape[1] != posterior.size or given.shape[0] < 2:
        raise ValueError(
            message(
                "The path has the wrong shape",
                expected=f"(points, {posterior.size}) with at least 2 points",
                got=given.shape,
                remedy='pass mcmc.get_samples()["x_latent"] of one chain',
            )
        )
    return given


@eqx.filter_jit
def _largest_singular_values(
    posterior: Posterior,
    points: Float[Array, "draws size"],
    operator: Callable[[jax.Array], ArrayLike],
) -> Float[Array, " draws"]:
    """Largest singular value of the Jacobian at each point, by subspace iteration."""
    size = posterior.size
    width = min(BLOCK_SIZE, size)

    def one(xi: jax.Array) -> jax.Array:
        _, push = jax.linearize(lambda xi: operator(posterior.values(xi)["x"]), xi)
        pull = jax.linear_transpose(push, xi)

        products = jax.vmap(lambda v: pull(push(v))[0])
        block = leading_subspace(products, size, width, xi.dtype, num_iterations=NUM_ITERATIONS)
        images = jax.vmap(push)(block).reshape(width, -1)
        return jnp.linalg.norm(images, 2)

    return jax.lax.map(one, points)


@eqx.filter_jit
def _count(posterior: Posterior, path: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Number of sign changes along a path, and its length."""
    inputs = rectified(lambda xi: posterior.values(xi)["x"])
    steps = jnp.linspace(0, 1, POINTS_PER_SEGMENT, dtype=path.dtype)

    def segment(ends: tuple[jax.Array, jax.Array]) -> jax.Array:
        start, end = ends
        signs = jax.lax.map(lambda t: inputs(start + t * (end - start)) > 0, steps)
        return jnp.sum(signs[1:] != signs[:-1])

    num_changes = jax.lax.map(segment, (path[:-1], path[1:]))
    return jnp.sum(num_changes), jnp.sum(jnp.linalg.norm(path[1:] - path[:-1], axis=-1))


def _kinks(posterior: Posterior, path: jax.Array) -> float | None:
    """Sign changes of rectifiers per unit of length along a path; None without rectifiers."""
    inputs = rectified(lambda xi: posterior.values(xi)["x"])
    if jax.eval_shape(inputs, path[0]).size == 0:
        return None
    num_changes, length = _count(posterior, path)
    return float(num_changes / jnp.maximum(length, np.finfo(np.float32).tiny))
