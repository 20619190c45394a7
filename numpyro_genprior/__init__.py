"""Generative priors as NumPyro distributions."""

import importlib
from typing import TYPE_CHECKING, Any

from numpyro_genprior import networks
from numpyro_genprior.priors import (
    FlowPrior,
    GANPrior,
    GaussianFieldPrior,
    GaussianPrior,
    Prior,
    VAEPrior,
)
from numpyro_genprior.sites import LatentReparam, latent, param, sample

if TYPE_CHECKING:
    from numpyro_genprior import (
        diagnostics,
        flows,
        infer,
        operators,
        plots,
        pretrained,
        testing,
        traces,
        train,
    )
    from numpyro_genprior.io import load, save
    from numpyro_genprior.traces import decode, event_moments, to_arviz

__version__ = "0.1.0"

# Imported when first used: they need packages that a user of the core may not have, or need not.
_LAZY = {
    "decode": "traces",
    "event_moments": "traces",
    "load": "io",
    "save": "io",
    "to_arviz": "traces",
}
_LAZY_MODULES = (
    "diagnostics",
    "flows",
    "infer",
    "io",
    "operators",
    "plots",
    "pretrained",
    "testing",
    "traces",
    "train",
)


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "FlowPrior",
    "GANPrior",
    "GaussianFieldPrior",
    "GaussianPrior",
    "LatentReparam",
    "Prior",
    "VAEPrior",
    "decode",
    "event_moments",
    "diagnostics",
    "flows",
    "infer",
    "latent",
    "load",
    "networks",
    "operators",
    "param",
    "plots",
    "pretrained",
    "sample",
    "save",
    "testing",
    "to_arviz",
    "traces",
    "train",
]
