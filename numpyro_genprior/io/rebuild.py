"""A prior from its description and its arrays, with no skeleton at hand.

Only the classes in the tables here, in `laws` and in the registry of architectures are ever built.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

import numpyro_genprior.flows.architectures  # noqa: F401  (registers its architectures)
from numpyro_genprior.errors import message
from numpyro_genprior.io import flatten
from numpyro_genprior.io.distributions import LAWS, make_support
from numpyro_genprior.io.errors import PriorFileError, StructureError, TemplateRequiredError
from numpyro_genprior.networks import architectures as networks
from numpyro_genprior.networks.architectures import ARCHITECTURES
from numpyro_genprior.priors.field import GaussianFieldPrior
from numpyro_genprior.priors.flow import FlowPrior
from numpyro_genprior.priors.gan import GANPrior
from numpyro_genprior.priors.gaussian import GaussianPrior
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.standard_normal import StandardNormal
from numpyro_genprior.priors.vae import VAEPrior

__all__ = ["needs_like", "rebuild"]


def rebuild(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Prior:
    """Build the prior that a file describes.

    Parameters
    ----------
    description
        What `describe` returned.
    arrays
        What `leaves.collect` returned.

    Raises
    ------
    TemplateRequiredError
        When a class or an architecture is not one of ours.
    StructureError, ShapeError, PrecisionError
        When description and arrays do not fit each other.
    """
    try:
        prior = _Source(description, arrays, "").prior()
        differs = flatten.difference(arrays, flatten.collect(prior)[0])
    except PriorFileError:
        raise
    except Exception as error:  # whatever a constructor says about a description it cannot use
        raise StructureError(
            message(
                f"The file's description and its arrays do not make a prior ({error})",
                remedy="pass like=prior, a prior of the structure of the one that was saved",
            )
        ) from error
    if differs is not None:
        raise StructureError(
            message(
                f"The array {differs} of the file has no place in the prior that it describes, or "
                "another value there",
                remedy="pass like=prior, a prior of the structure of the one that was saved",
            )
        )
    return prior


class _Source:
    """Description and arrays of one prior, whose arrays' names begin with `name`."""

    def __init__(
        self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str
    ) -> None:
        self.description, self.arrays, self.name = description, arrays, name

    def prior(self) -> Prior:
        family = self.description["family"]
        if family not in _FAMILIES:
            raise TemplateRequiredError(
                needs_like(f"the class {family} is not one of numpyro_genprior's")
            )
        return _FAMILIES[family](self)

    def path(self, part: str) -> str:
        return f"{self.name}.{part}" if self.name else part

    def array(self, part: str) -> jax.Array | None:
        array = self.arrays.get(self.path(part))
        return None if array is None else flatten.to_jax(self.path(part), array)

    def network(self, part: str) -> Any:
        entry = self.description["networks"].get(part)
        if entry is None:
            return None
        architecture = entry["architecture"]
        if architecture is None:
            raise TemplateRequiredError(
                needs_like(f"its {part}, a {entry['type']}, is no built-in architecture")
            )
        if architecture not in ARCHITECTURES:
            raise TemplateRequiredError(
                needs_like(f"the architecture {architecture} of its {part} is not registered here")
            )
        skeleton = _skeleton(architecture, entry["config"])
        return flatten.fill(skeleton, self.arrays, name=self.path(part))

    def support(self) -> Any:
        if self.description["support"] is None:
            raise TemplateRequiredError(needs_like("its support is none that a file can name"))
        return make_support(self.description["support"])

    def latent(self) -> Distribution:
        return self._law(self.description["latent"], self.path("latent"))

    def _law(self, entry: Mapping[str, Any], name: str) -> Distribution:
        law = entry["law"]
        if law == "prior":
            return _Source(entry["prior"], self.arrays, name).prior()
        if law == "StandardNormal":
            return StandardNormal(tuple(entry["shape"]))
        if law == "Independent":
            return self._law(entry["base"], f"{name}.base_dist").to_event(entry["ndims"])
        if law == "Expanded":
            return self._law(entry["base"], f"{name}.base_dist").expand(tuple(entry["batch_shape"]))
        if law not in LAWS:
            raise TemplateRequiredError(
                needs_like(f"its latent, a {entry['type']}, is no law that a file can name")
            )
        make, names = LAWS[law]
        parts = {n: flatten.to_jax(f"{name}.{n}", self.arrays[f"{name}.{n}"]) for n in names}
        return make(**parts)

    def condition(self) -> dict[str, Any]:
        return {"condition": self.array("condition"), **self.options()}

    def condition_shape(self) -> tuple[int, ...] | None:
        entry = self.description["condition"]
        return None if entry is None else tuple(entry["shape"])

    def options(self) -> dict[str, Any]:
        return {"validate_args": self.description["validate_args"]}


def _gan(source: _Source) -> GANPrior:
    return GANPrior(
        source.network("net"),
        source.latent(),
        support=source.support(),
        condition_shape=source.condition_shape(),
        **source.condition(),
    )


def _vae(source: _Source) -> VAEPrior:
    return VAEPrior(
        source.network("net"),
        source.latent(),
        scale=source.array("scale"),
        encoder=source.network("encoder"),
        condition_shape=source.condition_shape(),
        **source.condition(),
    )


def _flow(source: _Source) -> FlowPrior:
    return FlowPrior(
        source.network("flow"),
        latent=source.latent(),
        support=source.support(),
        **source.condition(),
    )


def _gaussian(source: _Source) -> GaussianPrior:
    loc, factor, diagonal = (source.array(part) for part in ("loc", "factor", "diagonal"))
    return GaussianPrior(loc, factor=factor, diagonal=diagonal, **source.options())


def _field(source: _Source) -> GaussianFieldPrior:
    shape = tuple(source.description["event_shape"])
    loc, spectrum = source.array("loc"), source.array("spectrum")
    return GaussianFieldPrior(shape, spectrum, loc=loc, **source.options())


_FAMILIES: dict[str, Callable[[_Source], Prior]] = {
    "FlowPrior": _flow,
    "GANPrior": _gan,
    "GaussianFieldPrior": _field,
    "GaussianPrior": _gaussian,
    "VAEPrior": _vae,
}


def _skeleton(architecture: str, config: Mapping[str, Any]) -> Any:
    text = json.dumps(config, sort_keys=True)
    return _build_skeleton(ARCHITECTURES[architecture], text, jnp.result_type(float))


@functools.lru_cache(maxsize=8)
def _build_skeleton(cls: type, config: str, dtype: Any) -> Any:
    """A module whose arrays do not matter. One for all files of an architecture: they then share
    their static parts, and so a compiled program.
    """
    if cls.__module__.startswith(f"{networks.__name__}."):
        return eqx.filter_eval_shape(lambda: networks.build(cls.__name__, json.loads(config)))
    # FlowJAX keeps arrays in closures, which abstract values must not enter. This generator of
    # random numbers compiles fastest.
    key = jax.random.key(0, impl="unsafe_rbg")
    return networks.build(cls.__name__, json.loads(config), key=key)


def needs_like(reason: str) -> str:
    """Why a file does not load by itself, and what to do."""
    return message(
        f"The file does not load by itself: {reason}",
        remedy="build a prior of the same structure, with any weights, and pass it: "
        "ngp.load(path, like=prior)",
    )
