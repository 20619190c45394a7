"""A prior from its description and its arrays, without a template.

Only registered families of priors, registered architectures and the distributions of a fixed table
are ever built; nothing is imported by name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpyro.distributions import Distribution, constraints

import numpyro_genprior.flows.architectures  # noqa: F401  (registers its architectures)
from numpyro_genprior.errors import message
from numpyro_genprior.io import flatten
from numpyro_genprior.io.describe import NOT_JSON
from numpyro_genprior.io.distributions import DISTRIBUTIONS, make_support
from numpyro_genprior.io.errors import PriorFileError, StructureError, TemplateRequiredError
from numpyro_genprior.networks import architectures as networks
from numpyro_genprior.networks.architectures import ARCHITECTURES
from numpyro_genprior.networks.frozen import Frozen
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.standard_normal import StandardNormal

__all__ = ["needs_like", "rebuild"]


def rebuild(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Prior:
    """Build the prior that a file describes.

    Parameters
    ----------
    description
        What `describe` returned.
    arrays
        What `flatten.collect` returned.

    Raises
    ------
    TemplateRequiredError
        If a class or an architecture is not registered, or does not build itself from a file.
    StructureError, ShapeError, PrecisionError
        If description and arrays do not fit each other.
    """
    try:
        prior = _Stored(description, arrays, "").prior()
        differs = flatten.difference(arrays, flatten.collect(prior)[0])
    except PriorFileError:
        raise
    except Exception as error:  # constructors may raise any exception
        raise StructureError(
            message(
                f"The file's description and its arrays do not make a prior ({error})",
                remedy="pass like=prior, a prior of the same structure as the one that was saved",
            )
        ) from error
    if differs is not None:
        raise StructureError(
            message(
                f"The array {differs} of the file does not belong to the prior that it describes, "
                "or differs from it",
                remedy="pass like=prior, a prior of the same structure as the one that was saved",
            )
        )
    return prior


class _Stored:
    """A `StoredPrior`: description and arrays of one prior, whose names begin with `name`."""

    def __init__(
        self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str
    ) -> None:
        self.description, self.arrays, self.name = description, arrays, name

    def prior(self) -> Prior:
        """The prior, if its class is defined and implements ``_from_file``."""
        family = self.description["family"]
        cls = Prior.families.get(family)
        if cls is None:
            raise TemplateRequiredError(
                message(
                    f"The file does not load by itself: the class {family} is not defined here",
                    remedy="import the module that defines it first, or build a prior of the same "
                    "structure, with any weights, and pass it: ngp.load(path, like=prior)",
                )
            )
        if cls._from_file.__func__ is Prior._from_file.__func__:
            raise TemplateRequiredError(
                needs_like(f"its class {family} does not implement _from_file")
            )
        for field, value in self.description["static"].items():
            if isinstance(value, dict) and NOT_JSON in value:
                raise TemplateRequiredError(
                    needs_like(f"its {field}, a {value[NOT_JSON]}, cannot be stored in a file")
                )
        return cls._from_file(self)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.description["event_shape"])

    @property
    def validate_args(self) -> bool | None:
        return self.description["validate_args"]

    @property
    def support(self) -> constraints.Constraint:
        if self.description["support"] is None:
            raise TemplateRequiredError(needs_like("its support is not one that a file can name"))
        return make_support(self.description["support"])

    @property
    def condition(self) -> jax.Array | None:
        return self.array("condition")

    @property
    def condition_shape(self) -> tuple[int, ...] | None:
        entry = self.description["condition"]
        return None if entry is None else tuple(entry["shape"])

    @property
    def latent(self) -> Distribution:
        return self._distribution(self.description["latent"], self._path("latent"))

    def array(self, field: str) -> jax.Array | None:
        array = self.arrays.get(self._path(field))
        return None if array is None else flatten.to_jax(self._path(field), array)

    def static(self, field: str) -> Any:
        return self.description["static"][field]

    def network(self, field: str) -> Frozen | None:
        entry = self.description["networks"].get(field)
        if entry is None:
            return None
        architecture = entry["architecture"]
        if architecture is None:
            raise TemplateRequiredError(
                needs_like(f"its {field}, a {entry['type']}, is not a built-in architecture")
            )
        if architecture not in ARCHITECTURES:
            raise TemplateRequiredError(
                needs_like(f"the architecture {architecture} of its {field} is not registered here")
            )
        template = _template(architecture, entry["config"])
        return Frozen(flatten.fill(template, self.arrays, name=self._path(field)))

    def _path(self, field: str) -> str:
        return f"{self.name}.{field}" if self.name else field

    def _distribution(self, entry: Mapping[str, Any], name: str) -> Distribution:
        kind = entry["distribution"]
        if kind == "prior":
            return _Stored(entry["prior"], self.arrays, name).prior()
        if kind == "StandardNormal":
            return StandardNormal(tuple(entry["shape"]))
        if kind == "Independent":
            return self._distribution(entry["base"], f"{name}.base_dist").to_event(entry["ndims"])
        if kind == "Expanded":
            base = self._distribution(entry["base"], f"{name}.base_dist")
            return base.expand(tuple(entry["batch_shape"]))
        if kind not in DISTRIBUTIONS:
            raise TemplateRequiredError(
                needs_like(
                    f"its latent, a {entry['type']}, is not a distribution that a file can name"
                )
            )
        make, names = DISTRIBUTIONS[kind]
        parts = {n: flatten.to_jax(f"{name}.{n}", self.arrays[f"{name}.{n}"]) for n in names}
        return make(**parts)


def _template(architecture: str, config: Mapping[str, Any]) -> PyTree:
    text = json.dumps(config, sort_keys=True)
    return _build_template(ARCHITECTURES[architecture], text, jnp.result_type(float))


@functools.lru_cache(maxsize=8)
def _build_template(cls: type, config: str, dtype: np.dtype) -> PyTree:
    """A module whose arrays do not matter.

    It is cached, so that priors from all files of an architecture share their static parts, and
    with them a compiled program.
    """
    if cls.__module__.startswith(f"{networks.__name__}."):
        return eqx.filter_eval_shape(lambda: networks.build(cls.__name__, json.loads(config)))
    # FlowJAX keeps arrays in closures, which must not hold abstract values, so weights are drawn.
    # This generator of random numbers compiles fastest.
    key = jax.random.key(0, impl="unsafe_rbg")
    return networks.build(cls.__name__, json.loads(config), key=key)


def needs_like(reason: str) -> str:
    """Why a file does not load by itself, and what to do."""
    return message(
        f"The file does not load by itself: {reason}",
        remedy="build a prior of the same structure, with any weights, and pass it: "
        "ngp.load(path, like=prior)",
    )
