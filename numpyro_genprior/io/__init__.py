"""Keeping a prior in a file: safetensors with a header that says what is inside."""

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
