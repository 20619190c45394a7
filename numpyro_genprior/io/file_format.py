"""The file format: safetensors, with one JSON header and a checksum over every byte.

The layout is that of safetensors (https://huggingface.co/docs/safetensors): eight bytes with the
length of a JSON header, the header, the arrays. Any reader of safetensors can open it. Our own
header is one entry of its ``__metadata__``, a string of JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from numpyro_genprior.errors import message
from numpyro_genprior.io.errors import (
    CorruptFileError,
    NotAPriorFileError,
    PriorFileError,
    TruncatedFileError,
    VersionError,
)

__all__ = ["FORMAT_VERSION", "decode", "decode_header", "encode", "to_json"]

FORMAT_VERSION = 2
KEY = "numpyro_genprior"

_PREFIX = "sha256:"
_BLANK = _PREFIX + "0" * 64
_SAVE_AGAIN = "copy or download the file from its source again, or save the prior again"

_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Lay out arrays and a JSON header as the bytes of a file.

    Parameters
    ----------
    header
        JSON values; ``format_version`` and ``checksum`` are added.
    arrays
        Arrays by name.

    Raises
    ------
    PriorFileError
        If the format does not support a dtype, or the header is not JSON.
    """
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise PriorFileError(
                message(
                    f"The array {name} cannot be kept in a file",
                    expected="booleans, integers or real floats of 8 to 64 bits",
                    got=f"dtype {array.dtype}",
                    remedy="convert it (complex numbers as two real arrays, keys as key data)",
                )
            )
    full = {"format_version": FORMAT_VERSION, **header, "checksum": _BLANK}
    data = safetensors.numpy.save(dict(arrays), metadata={KEY: to_json(full)})
    end = 8 + int.from_bytes(data[:8], "little")
    blank = _BLANK.encode()
    if data[:end].count(blank) != 1:
        raise PriorFileError("The header holds a blank checksum of its own. Rename that value.")
    checksum = _PREFIX + hashlib.sha256(data).hexdigest()
    return data[:end].replace(blank, checksum.encode()) + data[end:]


def to_json(description: Mapping[str, Any]) -> str:
    """The JSON text of a prior's description.

    Raises
    ------
    PriorFileError
        If JSON cannot represent it.
    """
    try:
        return json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PriorFileError(
            message(
                f"The description of the prior is not JSON ({error})",
                remedy="let the `config` of the architecture hold strings, numbers, booleans, "
                "None and lists of them",
            )
        ) from error


def decode_header(data: bytes) -> tuple[dict[str, Any], int]:
    """Read and check the header alone; return it and the offset at which the arrays begin.

    Raises
    ------
    NotAPriorFileError, CorruptFileError, VersionError
        If the file is invalid; the checksum is not verified.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 10 or data[8:9] != b"{":
        raise NotAPriorFileError(
            message(
                "This is not a safetensors file, or it is empty",
                got=f"{len(data)} bytes",
                remedy="pass a file that ngp.save wrote",
            )
        )
    if end > len(data):
        raise _truncated(f"a header of {end} bytes", data)
    safetensors_header = _json(data[8:end], "safetensors header")
    metadata = safetensors_header.get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise NotAPriorFileError(
            message(
                "This safetensors file was not written by ngp.save: it has weights but no prior",
                expected=f"an entry {KEY!r} in its metadata",
                remedy="read it with safetensors, put the weights into a network, and build the "
                "prior from that",
            )
        )
    header = _json(text, "header of the prior")
    version = header.get("format_version")
    if type(version) is not int or version < 1:
        raise CorruptFileError(message("The file has no format version", remedy=_SAVE_AGAIN))
    if version < FORMAT_VERSION:
        raise VersionError(
            message(
                "The file was written by an older numpyro_genprior "
                f"({header.get('package_version', 'unknown')})",
                expected=f"format version {FORMAT_VERSION}",
                got=version,
                remedy="build the prior again, around the arrays that any reader of safetensors "
                "finds in the file, and save it",
            )
        )
    if version > FORMAT_VERSION:
        raise VersionError(
            message(
                "The file was written by a newer numpyro_genprior "
                f"({header.get('package_version', 'unknown')})",
                expected=f"format version {FORMAT_VERSION} at most",
                got=version,
                remedy="update: pip install --upgrade numpyro_genprior",
            )
        )
    return header, end


def decode(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Split the bytes of a file into its header and its arrays.

    Raises
    ------
    NotAPriorFileError, TruncatedFileError, CorruptFileError, VersionError
        If anything is wrong; every byte is checked.
    """
    header, end = decode_header(data)
    full_size = end + _size_of_arrays(data[8:end])
    if len(data) < full_size:
        raise _truncated(f"{full_size} bytes", data)
    checksum = str(header.get("checksum")).encode()
    blanked = data[:end].replace(checksum, _BLANK.encode(), 1)
    digest = hashlib.sha256(blanked)
    digest.update(memoryview(data)[end:])
    if (_PREFIX + digest.hexdigest()).encode() != checksum:
        raise CorruptFileError(
            message(
                "The file was altered after it was written: its checksum differs",
                expected=checksum.decode(),
                got=_PREFIX + digest.hexdigest(),
                remedy=_SAVE_AGAIN,
            )
        )
    try:
        entries = safetensors.deserialize(data)
        arrays = {
            name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in entries
        }
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CorruptFileError(
            message(f"The arrays of the file cannot be read ({error})", remedy=_SAVE_AGAIN)
        ) from error
    return header, arrays


def _truncated(expected: str, data: bytes) -> TruncatedFileError:
    return TruncatedFileError(
        message(
            "The file is truncated",
            expected=expected,
            got=f"{len(data)} bytes in all",
            remedy=_SAVE_AGAIN,
        )
    )


def _size_of_arrays(text: bytes) -> int:
    """Size of the arrays in bytes by the safetensors header; 0 if it does not contain it."""
    entries = _json(text, "safetensors header").values()
    offsets = [entry.get("data_offsets") for entry in entries if isinstance(entry, dict)]
    ends = [pair[-1] for pair in offsets if isinstance(pair, list) and pair]
    return max((end for end in ends if type(end) is int), default=0)


def _json(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(
            message(f"The {what} is not JSON ({error})", remedy=_SAVE_AGAIN)
        ) from error
    if not isinstance(value, dict):
        raise CorruptFileError(message(f"The {what} is not a JSON object", remedy=_SAVE_AGAIN))
    return value
