"""Parameters of which the default tier leaves some out."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def tiered(values: Iterable[Any], *, slow: Collection[Any]) -> list[Any]:
    """The values as parameters of a test, those in `slow` marked so."""
    return [pytest.param(v, marks=pytest.mark.slow) if v in slow else v for v in values]
