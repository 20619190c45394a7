"""Read and write files atomically."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

__all__ = ["read", "write"]


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` so that a reader sees either the old content or the new.

    The bytes are written to a new file in the same folder and flushed to the disk; the new file
    then replaces the old one in one step. Symbolic links are followed, and permissions are kept.

    Raises
    ------
    OSError
        If the folder does not exist, `path` is a folder, or writing fails.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "This is a folder. Pass the name of a file", str(path)
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "The folder does not exist. Create it first", str(target.parent)
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the new name to the disk if folders can be opened (not on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read(path: str | os.PathLike[str]) -> bytes:
    """Read a whole regular file.

    Raises
    ------
    OSError
        If there is no such file, or it is a folder, a pipe or a device.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "This is a folder. Pass a file in it", str(path))
    if not path.exists():
        raise FileNotFoundError(
            errno.ENOENT, "There is no such file. Check the path, or ngp.save first", str(path)
        )
    if not path.is_file():
        raise OSError(
            errno.EINVAL, "This is a pipe or a device. Copy its content to a file first", str(path)
        )
    return path.read_bytes()
