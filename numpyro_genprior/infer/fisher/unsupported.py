"""Distributions that have no Fisher information."""

from __future__ import annotations

import numpyro.distributions as dist

from numpyro_genprior.infer.fisher.registry import refuse_fisher

refuse_fisher(
    dist.Unit,
    "numpyro.factor adds a term without a distribution of data. Write the likelihood as "
    "numpyro.sample(..., obs=...) with a distribution that has a rule.",
)
refuse_fisher(
    dist.Delta,
    "it is a point mass, whose observation is impossible or certain. Observe with noise, e.g. "
    "dist.Normal(value, scale).",
)
