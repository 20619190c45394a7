"""`modes`: which chains of a run are in the same mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC

from numpyro_genprior.diagnostics.posterior.draws import coordinates_of_run
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MAX_OVERLAP = 0.95  # share of pairs of draws in the same order, above which chains are separate
MAX_R_HAT = 1.05
ONE_MODE, NOT_MIXED, SEPARATE, ONE_CHAIN = "one_mode", "not_mixed", "separate_modes", "one_chain"


@dataclass(frozen=True, repr=False, eq=False)
class ChainModes(Result):
    """Which chains of a run are in the same mode. Print it to read the finding.

    Attributes
    ----------
    labels
        For each chain the number of its mode; 0 is the mode of the lowest mean energy.
    energies
        For each chain the mean of minus the log joint density of coordinates and data, in nats,
        comparable with ``find_map(...).energy``.
    separation
        For each pair of chains, how well their draws are separated: 1/2 not at all, 1 fully.
        Two chains are separate above 0.95.
    r_hat
        The largest split r_hat of any coordinate.
    """

    labels: Int[np.ndarray, " chains"]
    energies: Float[np.ndarray, " chains"]
    separation: Float[np.ndarray, "chains chains"]
    r_hat: float

    @property
    def num_modes(self) -> int:
        """Number of separate modes."""
        return int(self.labels.max()) + 1

    @property
    def chains_by_mode(self) -> tuple[tuple[int, ...], ...]:
        """The chains of each mode."""
        return tuple(
            tuple(map(int, np.flatnonzero(self.labels == label))) for label in range(self.num_modes)
        )

    @property
    def verdict(self) -> str:
        """``"one_mode"``, ``"not_mixed"`` (in one mode, but r_hat is above 1.05),
        ``"separate_modes"`` or ``"one_chain"`` (too few chains to compare).
        """
        if len(self.labels) == 1:
            return ONE_CHAIN
        if self.num_modes > 1:
            return SEPARATE
        return ONE_MODE if self.r_hat <= MAX_R_HAT else NOT_MIXED

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to do about any verdict other than ``"one_mode"``."""
        return {
            ONE_MODE: (),
            NOT_MIXED: ("The chains have not mixed: run them longer.",),
            SEPARATE: (
                "Each chain describes its own mode only, and averages over all chains weight the "
                "modes by how many chains are in each, not by their probability (which mean "
                "energies do not give, either): sample with ParallelTempering or SMC.",
            ),
            ONE_CHAIN: (
                "One chain cannot tell whether there are other modes: run several, from different "
                "starts.",
            ),
        }[self.verdict]

    def __str__(self) -> str:
        chains = len(self.labels)
        if chains == 1:
            headline = [f"One chain, of mean energy {self.energies[0]:.2f}."]
        elif self.num_modes == 1:
            headline = [
                f"{chains} chains are in one mode, of mean energy {self.energies.mean():.2f}; "
                f"r_hat is {self.r_hat:.3f}."
            ]
        else:
            headline = [f"{chains} chains are in {self.num_modes} separate modes:"]
            lowest = self.energies[list(self.chains_by_mode[0])].mean()
            for members in self.chains_by_mode:
                energy = self.energies[list(members)].mean()
                above = f" (+{energy - lowest:.2f})" if energy > lowest else ""
                names = f"chain{'' if len(members) == 1 else 's'} {', '.join(map(str, members))}"
                headline.append(f"  {names}: mean energy {energy:.2f}{above}")
        return "\n".join([*headline, *self.warnings])

    def __repr__(self) -> str:
        return (
            f"ChainModes({self.verdict!r}, num_modes={self.num_modes}, chains={len(self.labels)}, "
            f"r_hat={self.r_hat:.3g})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw `numpyro_genprior.plots.chain_modes`."""
        from numpyro_genprior import plots

        return plots.chain_modes(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Labels and energies by ``chain``, separations by ``chain`` and ``other_chain``."""
        return dataset(
            {
                "labels": (("chain",), self.labels),
                "energies": (("chain",), self.energies),
                "separation": (("chain", "other_chain"), self.separation),
                "r_hat": ((), self.r_hat),
            },
            attrs={"verdict": self.verdict},
        )


def modes(mcmc: MCMC, *, num_draws: int = 200) -> ChainModes:
    """Find out which chains of a run are in the same mode.

    Draws are expressed in the flat coordinates of `numpyro_genprior.infer.Posterior`. For two
    chains, the first halves of their draws give a direction: the difference of means divided by
    the within-chain variances. Along it the second halves are compared. Two chains are separate if
    more than 95 % of the pairs of draws, one from each, come in the same order (2.3 standard
    deviations for normals). Modes are the connected groups of chains that are not separate, so a
    chain that visits two modes joins the chains that are in either.

    Parameters
    ----------
    mcmc
        A NumPyro `MCMC` after ``run``, of any kernel that has a model.
    num_draws
        Maximum number of draws of each chain, evenly spaced; at least 4.

    Returns
    -------
    ChainModes
        ``.labels``, ``.energies``, ``.num_modes``, ``.verdict``; ``print`` states the finding.

    Raises
    ------
    TypeError
        If `mcmc` is not an `MCMC`, or its kernel has no model.
    ValueError
        If it has not run, has too few draws, or did not keep the draws of a latent site.

    Notes
    -----
    **Fails when** all chains are in one mode and others exist: only other starts, `find_map` or
    `ParallelTempering` can tell. Chains that drift count as separate, too.

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
    >>> found.num_modes, found.verdict
    (2, 'separate_modes')
    >>> bool(found.labels[0] == found.labels[2] != found.labels[1])
    True
    """  # fmt: skip
    posterior, xi = coordinates_of_run(mcmc, "modes", num_draws=num_draws)
    energy = np.asarray(_energies(posterior, xi))
    xi = np.asarray(xi)
    energies = energy.mean(1)
    separation = _separation(xi)
    return ChainModes(
        labels=_labels(separation <= MAX_OVERLAP, energies),
        energies=energies,
        separation=separation,
        r_hat=_r_hat(xi),
    )


@eqx.filter_jit
def _energies(
    posterior: Posterior, xi: Float[Array, "chains draws size"]
) -> Float[Array, "chains draws"]:
    return jax.vmap(lambda chain: jax.lax.map(posterior.energy, chain))(xi)


def _separation(xi: Float[np.ndarray, "chains draws size"]) -> Float[np.ndarray, "chains chains"]:
    """Separation of the second halves of each pair of chains, by a direction from the first."""
    xi, half = xi.astype(float), xi.shape[1] // 2
    first, second = xi[:, :half], xi[:, half:]
    mean, variance = first.mean(1), first.var(1)
    result = np.full((len(xi), len(xi)), 0.5)
    for a in range(len(xi)):
        for b in range(a):
            difference = mean[a] - mean[b]
            floor = np.maximum(1e-12 * difference**2, 1e-300)  # for chains that never moved
            direction = difference / (variance[a] + variance[b] + floor)
            one, other = second[a] @ direction, second[b] @ direction
            order = np.sign(one[:, None] - other[None, :])
            result[a, b] = result[b, a] = 0.5 + 0.5 * order.mean()
    return result


def _labels(
    connected: Bool[np.ndarray, "chains chains"], energies: Float[np.ndarray, " chains"]
) -> Int[np.ndarray, " chains"]:
    """Number the connected groups of chains by their mean energies."""
    labels = np.arange(len(connected))
    for a, b in zip(*np.nonzero(connected), strict=True):
        labels[labels == labels[b]] = labels[a]
    groups = sorted(set(labels), key=lambda label: energies[labels == label].mean())
    return np.array([groups.index(label) for label in labels])


def _r_hat(xi: Float[np.ndarray, "chains draws size"]) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        r_hat = np.asarray(split_gelman_rubin(xi))
    return float(np.where(np.isnan(r_hat), np.inf, r_hat).max())  # a chain that never moved
