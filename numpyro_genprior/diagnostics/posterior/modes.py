"""`modes`: which chain sits where."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC

from numpyro_genprior.diagnostics.posterior.draws import coordinates_of_run
from numpyro_genprior.infer.posterior import Posterior

APART = 0.95  # part of the pairs of draws that a direction puts in order
MIXED = 1.05  # r_hat


@dataclass(frozen=True, repr=False)
class ChainModes:
    """Where the chains of a run sit. Print it to read what that means.

    Attributes
    ----------
    labels
        For each chain the place where it sits, from 0, the place of the lowest mean energy.
    energies
        For each chain the mean of minus the log joint density of coordinates and data, in nats,
        comparable with ``find_map(...).energy``.
    separation
        For each pair of chains, how well their draws can be told apart: 1/2 not at all, 1 fully.
        Two chains are apart above 0.95.
    r_hat
        The largest split r_hat of any coordinate.
    """

    labels: np.ndarray
    energies: np.ndarray
    separation: np.ndarray
    r_hat: float

    @property
    def num_modes(self) -> int:
        """Number of separate places."""
        return int(self.labels.max()) + 1

    @property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """The chains of each place."""
        return tuple(
            tuple(map(int, np.flatnonzero(self.labels == label))) for label in range(self.num_modes)
        )

    def __repr__(self) -> str:
        chains = len(self.labels)
        if chains == 1:
            return (
                f"One chain, of mean energy {self.energies[0]:.2f}: it cannot tell whether there "
                "are other modes. Run several, from separate starts."
            )
        if self.num_modes == 1:
            verdict = (
                f"{chains} chains sit in one place, of mean energy {self.energies.mean():.2f}; "
                f"r_hat is {self.r_hat:.3f}"
            )
            if self.r_hat <= MIXED:
                return verdict + "."
            return verdict + ": they have not mixed there. Run them longer."
        lines = [f"{chains} chains sit in {self.num_modes} separate places:"]
        best = self.energies[list(self.places[0])].mean()
        for place in self.places:
            energy = self.energies[list(place)].mean()
            above = "" if place is self.places[0] or energy == best else f" (+{energy - best:.2f})"
            names = f"chain{'' if len(place) == 1 else 's'} {', '.join(map(str, place))}"
            lines.append(f"  {names}: mean energy {energy:.2f}{above}")
        lines.append(
            "Each describes its own place only, and averages over all chains weigh the places by "
            "how many chains fell into each, not by their probability (which a mean energy does "
            "not give, either). Sample with ParallelTempering or SMC."
        )
        return "\n".join(lines)


def modes(mcmc: MCMC, *, num_draws: int = 200) -> ChainModes:
    """Tell which chains of a run sit in the same mode.

    Draws are taken to the flat coordinates of `numpyro_genprior.infer.Posterior`. For two chains,
    the first halves of their draws give a direction, the difference of means over within-chain
    variances. Along it the second halves are compared: two chains are apart when more than 95 % of
    the pairs of draws, one of each, come in the same order (2.3 standard deviations for normals).
    Places are what chains that are not apart connect. A chain that visits two modes thus joins the
    chains that sit in either.

    Parameters
    ----------
    mcmc
        A NumPyro `MCMC` after ``run``, of any kernel that has a model.
    num_draws
        Most draws of each chain that are looked at, evenly spaced, at least 4.

    Returns
    -------
    ChainModes
        ``.labels``, ``.energies``, ``.num_modes``; prints as a finding.

    Raises
    ------
    TypeError
        When `mcmc` is not an `MCMC`, or its kernel has no model.
    ValueError
        When it has not run, has too few draws, or draws of a latent site were not kept.

    Notes
    -----
    **Fails when** all chains sit in one mode and others exist: only other starts, `find_map` or
    `ParallelTempering` can tell. Chains that drift are apart, too.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter, Bürkner, Rank-normalization, folding, and localization: an
    improved R-hat, Bayesian Analysis 2021.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC, NUTS
    >>> from numpyro_genprior.diagnostics import modes
    >>> def model(y):
    ...     z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(z**2, 0.1), obs=y)
    >>> mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=100, num_chains=3,
    ...             chain_method="vectorized", progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.array(1.0), init_params={"z": jnp.array([1.0, -1.0, 1.0])})
    >>> found = modes(mcmc)
    >>> found.num_modes
    2
    >>> bool(found.labels[0] == found.labels[2] != found.labels[1])
    True
    """  # fmt: skip
    posterior, xi = coordinates_of_run(mcmc, "modes", num_draws=num_draws)
    energy = np.asarray(_energies(posterior, xi))
    xi = np.asarray(xi)
    energies = energy.mean(1)
    separation = _separation(xi)
    return ChainModes(
        labels=_labels(separation <= APART, energies),
        energies=energies,
        separation=separation,
        r_hat=_r_hat(xi),
    )


@eqx.filter_jit
def _energies(posterior: Posterior, xi: jax.Array) -> jax.Array:
    return jax.vmap(lambda chain: jax.lax.map(posterior.energy, chain))(xi)


def _separation(xi: np.ndarray) -> np.ndarray:
    """How well a direction from the first halves tells the second halves of two chains apart."""
    xi, half = xi.astype(float), xi.shape[1] // 2
    first, second = xi[:, :half], xi[:, half:]
    mean, variance = first.mean(1), first.var(1)
    result = np.full((len(xi), len(xi)), 0.5)
    for a in range(len(xi)):
        for b in range(a):
            difference = mean[a] - mean[b]
            tiny = np.maximum(1e-12 * difference**2, 1e-300)  # for chains that never moved
            direction = difference / (variance[a] + variance[b] + tiny)
            one, other = second[a] @ direction, second[b] @ direction
            order = np.sign(one[:, None] - other[None, :])
            result[a, b] = result[b, a] = 0.5 + 0.5 * order.mean()
    return result


def _labels(together: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Number the connected groups by their mean energies."""
    labels = np.arange(len(together))
    for a, b in zip(*np.nonzero(together), strict=True):
        labels[labels == labels[b]] = labels[a]
    groups = sorted(set(labels), key=lambda label: energies[labels == label].mean())
    return np.array([groups.index(label) for label in labels])


def _r_hat(xi: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        r_hat = np.asarray(split_gelman_rubin(xi))
    return float(np.where(np.isnan(r_hat), np.inf, r_hat).max())  # a chain that never moved
