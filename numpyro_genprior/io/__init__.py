"""Save a prior in a file and load it: safetensors with a header that describes the prior."""

from numpyro_genprior.io.errors import (
    CorruptFileError,
    FamilyError,
    NotAPriorFileError,
    PrecisionError,
    PriorFileError,
    ShapeError,
    StructureError,
    TemplateRequiredError,
    TruncatedFileError,
    VersionError,
)
from numpyro_genprior.io.save_load import load, read_header, save

__all__ = [
    "CorruptFileError",
    "FamilyError",
    "NotAPriorFileError",
    "PrecisionError",
    "PriorFileError",
    "ShapeError",
    "TemplateRequiredError",
    "StructureError",
    "TruncatedFileError",
    "VersionError",
    "load",
    "read_header",
    "save",
]
