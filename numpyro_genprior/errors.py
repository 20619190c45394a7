"""One shape for every message: what is wrong, what was expected, what came, what to do."""

from __future__ import annotations


def message(what: str, *, expected: str | None = None, got: object = None, remedy: str) -> str:
    """Compose an error message of four parts.

    Parameters
    ----------
    what
        The fault, as a sentence without a full stop.
    expected
        What was expected, if that is not said by `what`.
    got
        What came instead.
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
    """A network that cannot serve as one, with a message that already says what to do."""
