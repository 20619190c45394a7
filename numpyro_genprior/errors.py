"""Error messages of four parts: what is wrong, what was expected, what was given, what to do."""

from __future__ import annotations


def message(what: str, *, expected: str | None = None, got: object = None, remedy: str) -> str:
    """Compose an error message of four parts.

    Parameters
    ----------
    what
        What is wrong, as a sentence without a full stop.
    expected
        What was expected, unless `what` says it.
    got
        What was given instead.
    remedy
        What the user can do, as an imperative sentence.
    """
    parts = [what]
    if expected is not None:
        parts.append(f"expected {expected}")
    if got is not None:
        parts.append(f"got {got}")
    return "; ".join(parts) + f". {remedy[0].upper()}{remedy[1:]}."


class NetworkError(ValueError):
    """A function that cannot be used as a network; the message says what to do."""
