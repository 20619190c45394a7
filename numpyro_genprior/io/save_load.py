"""`save` and `load`: a prior in one file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from numpyro_genprior import validation
from numpyro_genprior.errors import message
from numpyro_genprior.io import atomic, file_format, flatten
from numpyro_genprior.io.describe import describe, same_description
from numpyro_genprior.io.errors import (
    CorruptFileError,
    PriorFileError,
    ShapeError,
    StructureError,
    TemplateRequiredError,
)
from numpyro_genprior.io.rebuild import needs_like, rebuild
from numpyro_genprior.priors.prior import Prior

__all__ = ["load", "read_header", "save"]


def save(path: str | os.PathLike[str], prior: Prior) -> None:
    """Save a prior in one file, in safetensors format.

    The file holds all arrays bit for bit (weights, scale, condition, parameters of the latent) and
    a JSON header that describes them. It is written atomically: an interrupted save leaves an old
    file as it was.

    Parameters
    ----------
    path
        The file; an old one is replaced.
    prior
        A prior. The families of this package on built-in architectures load by themselves, and so
        do your own families if they implement the hook ``_from_file``. Any other `Prior` on any
        network is saved too, but needs ``like=`` to load. The header's ``loads`` tells which.

    Raises
    ------
    TypeError
        If `prior` is not a `Prior` (expanded and masked ones are wrapped: save what is inside).
    PriorFileError
        If an array has no value (inside ``jit``) or a dtype that a file cannot hold.
    ValueError
        If an array is not finite.
    OSError
        If the folder does not exist, `path` is a folder, or writing fails.

    Notes
    -----
    **Fails when** a network keeps weights where JAX cannot see them: they are not saved.

    Examples
    --------
    >>> import jax.numpy as jnp, numpyro_genprior as ngp, os, tempfile
    >>> prior = ngp.GaussianPrior(jnp.zeros(3), factor=jnp.ones((3, 1)), diagonal=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "gaussian.safetensors")
    ...     ngp.save(path, prior)
    ...     ngp.load(path)
    GaussianPrior(latent_shape=(4,), event_shape=(3,), density='exact')
    """
    if not isinstance(prior, Prior):
        raise TypeError(
            message(
                "ngp.save saves priors",
                expected="an ngp.Prior",
                got=type(prior).__name__,
                remedy="save the prior inside, before expand, to_event or mask, and apply these "
                "after loading",
            )
        )
    arrays, constants = flatten.collect(prior)
    validation.weights_finite(prior, f"The {type(prior).__name__} to be saved")
    description = describe(prior)
    reason = _why_like_is_needed(prior, description, arrays, constants)
    header = {
        "format": "a numpyro_genprior prior; read with numpyro_genprior.load(path)",
        "package_version": _package_version(),
        "loads": "by itself" if reason is None else "with like=",
        "reason": reason,
        "prior": description,
        "arrays": _listed(arrays),
        "constants": {} if reason is None else constants,
    }
    atomic.write(path, file_format.encode(header, arrays))


def load(path: str | os.PathLike[str], like: Prior | None = None) -> Any:
    """Read a prior that `save` wrote.

    Nothing in the file is executed: only classes of priors and architectures that are registered
    are built; other networks come from `like`. Every byte is checked first.

    Parameters
    ----------
    path
        The file.
    like
        A prior of the same class and structure, with any weights: the template to fill. Needed for
        networks that are not built-in architectures, and for priors of your own without the hook
        ``_from_file``.

    Returns
    -------
    The prior, with the arrays of the file bit for bit.

    Raises
    ------
    OSError
        If there is no such file, or it is a folder.
    PriorFileError
        A ValueError, as one of its subclasses in `numpyro_genprior.io`: `NotAPriorFileError`,
        `TruncatedFileError`, `CorruptFileError` (altered), `VersionError` (newer),
        `TemplateRequiredError` (needs `like`), `FamilyError`, `ShapeError` and `StructureError`
        (does not fit), `PrecisionError` (64-bit numbers in 32-bit mode).

    Notes
    -----
    **Fails when** `like` differs from the saved prior in something that no array shows, such as the
    activation function of your own network: keep the code that built it.
    """
    data = atomic.read(path)
    try:
        header, arrays = file_format.decode(data)
        return _build(header, arrays, like)
    except PriorFileError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a file says about its prior, without loading it.

    Parameters
    ----------
    path
        A file that `save` wrote.

    Returns
    -------
    JSON values: ``format_version``, ``package_version``, ``loads`` (by itself or with ``like=``),
    ``prior`` (family, event shape, support, latent, condition, architectures), ``arrays`` (dtype
    and shape by name), ``checksum``.

    Raises
    ------
    OSError, PriorFileError
        As `load`, except that the arrays and the checksum are not verified.

    Notes
    -----
    **Fails when** `ngp.save` did not write the file, like `load`.
    """
    return file_format.decode_header(atomic.read(path))[0]


def _build(header: dict[str, Any], arrays: dict[str, np.ndarray], like: Prior | None) -> Prior:
    description = header.get("prior")
    if not isinstance(description, dict) or not isinstance(header.get("constants"), dict):
        raise StructureError("The file describes no prior. Save the prior again.")
    listed = header.get("arrays")
    if listed != _listed(arrays):
        raise ShapeError(
            message(
                "The arrays listed in the header differ from those in the file",
                expected=str(listed),
                got=_listed(arrays),
                remedy="save the prior again",
            )
        )
    if like is None:
        if header.get("reason") is not None:
            raise TemplateRequiredError(header["reason"])
        prior = rebuild(description, arrays)
        if describe(prior) != description:
            raise StructureError(
                message(
                    "The file's description and its arrays do not agree",
                    expected=str(description),
                    got=describe(prior),
                    remedy="save the prior again",
                )
            )
        return prior
    if not isinstance(like, Prior):
        raise TypeError(
            message(
                "`like` is not a prior",
                expected=f"a {description.get('family')}",
                got=type(like).__name__,
                remedy="pass a prior, not its network",
            )
        )
    expected = describe(like)
    if description.get("family") != expected["family"]:
        same_description(description.get("family"), expected["family"], "prior.family")
    missing = arrays.keys() - flatten.collect(like)[0].keys()
    if missing:
        raise StructureError(
            message(
                f"The file has an array {min(missing)}, and like= has none of that name",
                remedy="pass as like= a prior of the same structure as the one that was saved",
            )
        )
    prior = flatten.fill(like, arrays, constants=header["constants"], exact=True)
    same_description(description, expected)
    try:
        validation.weights_finite(prior, "The prior in the file")
    except ValueError as error:
        raise CorruptFileError(str(error)) from error
    return prior


def _listed(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{a.dtype}{list(a.shape)}" for name, a in sorted(arrays.items())}


def _why_like_is_needed(
    prior: Prior,
    description: dict[str, Any],
    arrays: dict[str, np.ndarray],
    constants: dict[str, str],
) -> str | None:
    """Build the prior as `load` will, and say why that cannot be done without ``like=``."""
    try:
        built = rebuild(description, arrays)
    except PriorFileError as error:
        return str(error)
    same = describe(built) == description and flatten.collect(built)[1] == constants
    if same and type(built) is type(prior):
        return None
    return needs_like(
        f"another class of the name {type(prior).__name__} is registered, or its _from_file builds "
        "another prior"
    )


def _package_version() -> str:
    import numpyro_genprior

    return numpyro_genprior.__version__
