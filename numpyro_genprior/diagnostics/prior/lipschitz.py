"""`lipschitz`: how steep a generator is, and how often it has a kink."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.prior.jaxpr_lipschitz import layer_bound, rectified
from numpyro_genprior.diagnostics.prior.prior_posterior import bare_prior, generator, prior_draws
from numpyro_genprior.errors import message
from numpyro_genprior.infer.linalg.subspace_iteration import leading_subspace
from numpyro_genprior.infer.posterior import Posterior

BLOCK, ITERATIONS = 4, 20  # of the subspace iteration for the largest singular value
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
FINE = 64  # points of a path between two latents at which rectifiers are looked at


@dataclass(frozen=True, repr=False)
class Lipschitz:
    """Local Lipschitz constants of a generator over prior draws. Print it to read them.

    Attributes
    ----------
    values
        Largest singular value of the Jacobian at each draw, in event units (or those of the
        operator's output) a prior standard deviation.
    bound
        Product of the layers' norms and the activations' slopes: no slope anywhere exceeds it.
        Infinite where the network has a piece without a known bound.
    unbounded
        The first such piece; empty when there is none.
    kinks
        Rectifiers that change sign a unit of latent length, on average; None without rectifiers.
    """

    values: jax.Array
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

    def __repr__(self) -> str:
        quantiles = self.quantiles
        lines = [
            f"Local Lipschitz constants over {len(self.values)} prior draws: median "
            f"{quantiles[0.5]:.3g}, 5 to 95 % {quantiles[0.05]:.3g} to {quantiles[0.95]:.3g}, "
            f"largest {self.max:.3g}."
        ]
        if math.isfinite(self.bound):
            lines.append(
                f"  never above {self.bound:.3g} (product of the layers' norms: "
                f"{self.bound / self.max:.1f} times the largest seen)"
            )
        else:
            lines.append(f"  no upper bound: {self.unbounded} has none that is known")
        if self.kinks:
            lines.append(
                f"  {self.kinks:.0f} kinks a unit of latent length (rectifiers that change "
                "sign): HMC's steps lose accuracy at each, so expect steps shorter than the "
                "curvature alone would ask for"
            )
        lines.append(
            "Noise below (largest constant) times a latent distance tells those latents apart; "
            "constants at other draws may be larger."
        )
        return "\n".join(lines)


def lipschitz(
    prior: Any,
    key: jax.Array,
    *,
    num_draws: int = 64,
    operator: Callable[[Any], Any] | None = None,
    path: ArrayLike | None = None,
) -> Lipschitz:
    """Local Lipschitz constants of g, or of A ∘ g, over prior draws.

    At each draw the largest singular value of the Jacobian, by subspace iteration with products
    (4 vectors, 20 iterations), in coordinates that are standard normal under the prior. The upper
    bound is the product over layers of spectral norms and activation slopes, read off the network
    of any library where its operations are known.

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
        Latents along which kinks are counted, of shape ``(points, size)``, in their order: a chain
        of ``x_latent``, a leapfrog trajectory. None: straight lines between successive draws.

    Returns
    -------
    Lipschitz
        ``.max``, ``.quantiles``, ``.bound``, ``.kinks``; prints as a finding.

    Raises
    ------
    TypeError, ValueError
        When `prior` is no prior or a batch of them, or `path` has another size.

    Notes
    -----
    **Fails when** the largest singular values lie close together: the iteration then gives one a
    little too small. Draws miss steep places of little probability; the bound does not, and may be
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
                "lipschitz looks at draws",
                expected="num_draws of at least 2",
                got=num_draws,
                remedy="leave num_draws=64",
            )
        )
    posterior = generator(core)
    points = prior_draws(posterior, validation.random_key(key), num_draws)
    operator = _same if operator is None else operator
    values = _steepest(posterior, points, operator)

    def whole(xi: jax.Array) -> jax.Array:
        return jnp.asarray(operator(posterior.values(xi)["x"]))

    bound, unbounded = layer_bound(whole, posterior.size)
    return Lipschitz(values, bound, unbounded, _kinks(posterior, _path(posterior, points, path)))


def _same(x: Any) -> Any:
    return x


def _path(posterior: Posterior, points: jax.Array, path: ArrayLike | None) -> jax.Array:
    if path is None:
        return points[:4]
    given = jnp.asarray(path, points.dtype)
    if given.ndim != 2 or given.shape[1] != posterior.size or given.shape[0] < 2:
        raise ValueError(
            message(
                "A path of the wrong shape",
                expected=f"(points, {posterior.size}) with at least 2 points",
                got=given.shape,
                remedy='pass mcmc.get_samples()["x_latent"] of one chain',
            )
        )
    return given


@eqx.filter_jit
def _steepest(posterior: Posterior, points: jax.Array, operator: Any) -> jax.Array:
    size = posterior.size
    width = min(BLOCK, size)

    def one(xi: jax.Array) -> jax.Array:
        _, push = jax.linearize(lambda xi: operator(posterior.values(xi)["x"]), xi)
        pull = jax.linear_transpose(push, xi)

        products = jax.vmap(lambda v: pull(push(v))[0])
        block = leading_subspace(products, size, width, xi.dtype, num_iterations=ITERATIONS)
        images = jax.vmap(push)(block).reshape(width, -1)
        return jnp.linalg.norm(images, 2)

    return jax.lax.map(one, points)


@eqx.filter_jit
def _count(posterior: Posterior, path: jax.Array) -> tuple[jax.Array, jax.Array]:
    inputs = rectified(lambda xi: posterior.values(xi)["x"])
    steps = jnp.linspace(0, 1, FINE, dtype=path.dtype)

    def segment(ends: Any) -> jax.Array:
        start, end = ends
        signs = jax.lax.map(lambda t: inputs(start + t * (end - start)) > 0, steps)
        return jnp.sum(signs[1:] != signs[:-1])

    crossed = jax.lax.map(segment, (path[:-1], path[1:]))
    return jnp.sum(crossed), jnp.sum(jnp.linalg.norm(path[1:] - path[:-1], axis=-1))


def _kinks(posterior: Posterior, path: jax.Array) -> float | None:
    inputs = rectified(lambda xi: posterior.values(xi)["x"])
    if jax.eval_shape(inputs, path[0]).size == 0:
        return None
    crossed, length = _count(posterior, path)
    return float(crossed / jnp.maximum(length, np.finfo(np.float32).tiny))
