"""Trained priors that ship with the package, each with a card.

``mnist_*`` are priors of 28×28 handwritten digits and ``digits_*`` of scikit-learn's 8×8 digits,
both with pixels from 0 to 1. ``examples/train_pretrained.py`` trains them.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from numpyro_genprior import io
from numpyro_genprior.errors import message
from numpyro_genprior.priors.prior import Prior
from numpyro_genprior.priors.vae import VAEPrior

__all__ = ["card", "load", "names"]

_SUFFIX = ".safetensors"

# Priors whose file holds only a distribution of the latents of another prior's decoder.
_DECODERS = {"mnist_flow": "mnist_vae"}


def names() -> tuple[str, ...]:
    """The names of the pretrained priors, in alphabetical order.

    Examples
    --------
    >>> from numpyro_genprior import pretrained
    >>> "digits_vae" in pretrained.names()
    True
    """
    files = [file.name for file in _folder().iterdir()]
    return tuple(sorted(f.removesuffix(_SUFFIX) for f in files if f.endswith(_SUFFIX)))


def load(name: str) -> Prior:
    """Load a pretrained prior.

    Parameters
    ----------
    name
        One of `names`.

    Returns
    -------
    Prior
        A `VAEPrior` with its encoder (``*_vae``, ``mnist_flow``), a `GANPrior` (``*_gan``), a
        `FlowPrior` (``digits_flow``) or a `GaussianPrior` (``*_gaussian``). Events have shape
        (28, 28) or (8, 8).

    Raises
    ------
    ValueError
        If there is no prior of that name.

    Notes
    -----
    **Density** that of the prior's class, which `card` names.

    **Fails when** your images differ from the training data in size, polarity (strokes are bright),
    position or scale of the pixels: every posterior is then biased towards the wrong digits.

    Examples
    --------
    >>> from numpyro_genprior import pretrained
    >>> pretrained.load("digits_vae").event_shape
    (8, 8)
    """
    with resources.as_file(_file(name, _SUFFIX)) as path:
        prior = io.load(path)
    if name not in _DECODERS:
        return prior
    vae = load(_DECODERS[name])
    if not isinstance(vae, VAEPrior):
        raise TypeError(f"{_DECODERS[name]} must be a VAEPrior, got {type(vae).__name__}.")
    return VAEPrior(vae.net, prior, scale=vae.scale, encoder=vae.encoder)


def card(name: str) -> str:
    """Describe a pretrained prior: data and licence, split, architecture, training, held-out fit.

    Parameters
    ----------
    name
        One of `names`.

    Returns
    -------
    str
        The card, in Markdown.

    Raises
    ------
    ValueError
        If there is no prior of that name.
    """
    return _file(name, ".md").read_text(encoding="utf-8")


def _folder() -> Traversable:
    return resources.files("numpyro_genprior") / "pretrained_data"


def _file(name: str, suffix: str) -> Traversable:
    if name not in names():
        raise ValueError(
            message(
                f"There is no pretrained prior {name!r}",
                expected=", ".join(names()),
                remedy="choose one of these, or train your own with numpyro_genprior.train",
            )
        )
    return _folder() / (name + suffix)
