"""Errors of saving and loading. All are ValueErrors; nothing is ever half loaded."""

from __future__ import annotations

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
]


class PriorFileError(ValueError):
    """A prior cannot be saved to a file or loaded from it."""


class NotAPriorFileError(PriorFileError):
    """The file is not one that `save` writes."""


class CorruptFileError(PriorFileError):
    """The file is truncated, or was altered after it was written."""


class TruncatedFileError(CorruptFileError):
    """The file ends before its header says: a copy or a download that was cut off."""


class VersionError(PriorFileError):
    """The file was written in another version of the format."""


class TemplateRequiredError(PriorFileError):
    """The file does not load by itself: it needs ``like=``."""


class StructureError(PriorFileError):
    """The file holds a prior of another structure than was expected."""


class FamilyError(StructureError):
    """The file holds a prior of another class than ``like=``."""


class ShapeError(StructureError):
    """An array in the file has another shape or dtype than was expected."""


class PrecisionError(PriorFileError):
    """The file holds 64-bit numbers and JAX runs in 32 bits: they would be rounded."""
