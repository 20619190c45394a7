"""Haiku networks as unbatched callable pytrees."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, TypeGuard, final

import equinox as eqx
import jax
from jaxtyping import ArrayLike, PyTree

from numpyro_genprior.errors import NetworkError, message
from numpyro_genprior.networks.adapter import NetworkAdapter, as_arrays, hashable_keywords

if TYPE_CHECKING:
    from haiku import Transformed, TransformedWithState

__all__ = ["from_haiku"]


def from_haiku(
    transformed: Transformed | TransformedWithState,
    params: Mapping[str, PyTree[ArrayLike]],
    state: Mapping[str, PyTree[ArrayLike]] | None = None,
    *,
    batched: bool = False,
    **apply_kwargs: Hashable,
) -> NetworkAdapter:
    """Make a network from a Haiku transform and its parameters.

    Parameters
    ----------
    transformed
        ``hk.transform(f)`` or ``hk.transform_with_state(f)``, with or without
        ``hk.without_apply_rng``. The function ``f`` takes one latent, of the latent's shape and
        without a batch axis, and a condition if there is one; it returns one event or
        ``(loc, scale)``.
    params
        The parameters, as ``transformed.init`` returns them.
    state
        The state (batch statistics) of ``hk.transform_with_state``, read but never updated.
    batched
        True for a network that expects a leading batch axis (image convolutions, flattening): one
        of length one is added to every input and removed from every output.
    **apply_kwargs
        Switches that ``f`` takes by keyword, such as ``is_training=False``; hashable.

    Returns
    -------
    A callable pytree ``net(latent)`` or ``net(latent, condition)``, whose leaves are the parameters
    and the state. Adapters of one transform share a compiled program whatever their parameters.

    Raises
    ------
    TypeError
        If ``transformed`` is not a Haiku transform, or parameters, state or switches have the
        wrong type.
    ValueError
        If the state is missing or superfluous; on the first call, if the network draws random
        numbers.
    ImportError
        If dm-haiku is not installed.

    Notes
    -----
    **Fails when** the network is in training mode: dropout raises an error, because a prior needs a
    deterministic function, and batch normalisation over a batch of one (a constant) warns.

    Examples
    --------
    >>> import haiku as hk, jax
    >>> from numpyro_genprior.networks import from_haiku
    >>> transformed = hk.transform(lambda z: hk.nets.MLP([8, 3])(z))
    >>> net = from_haiku(transformed, transformed.init(jax.random.key(0), jax.numpy.zeros(2)))
    >>> net(jax.numpy.ones(2)).shape
    (3,)
    """
    _check_transform(transformed)
    with_state = _has_state(transformed)
    _check_variables(params, state, with_state)
    remedy = "pass the mapping that init returned, or trained values of that structure"
    variables = {
        "params": as_arrays("params", params, remedy),
        "state": as_arrays("state", state, remedy) if with_state else None,
    }
    keywords = hashable_keywords(apply_kwargs)
    return _HaikuNetwork(variables, batched, transformed, keywords)


@final
class _HaikuNetwork(NetworkAdapter):
    variables: dict[str, PyTree[jax.Array]]
    batched: bool = eqx.field(static=True)
    transformed: Transformed | TransformedWithState = eqx.field(static=True)
    keywords: tuple[tuple[str, Hashable], ...] = eqx.field(static=True)

    def apply(self, *inputs: jax.Array) -> PyTree[jax.Array]:
        params, state = self.variables["params"], self.variables["state"]
        with_state = _has_state(self.transformed)
        leading = (params, state) if with_state else (params,)
        rng = (None,) if _takes_rng(self.transformed) else ()
        try:
            output = self.transformed.apply(*leading, *rng, *inputs, **dict(self.keywords))
        except ValueError as error:
            if type(error).__name__ != "MissingRNGError":  # Haiku does not export the class
                raise
            raise NetworkError(
                message(
                    "The Haiku network draws random numbers when it is applied",
                    expected="a function of the latent alone",
                    remedy="remove dropout or pass its switch, for example from_haiku(..., "
                    "is_training=False); noise of the decoder is VAEPrior's `scale`",
                )
            ) from error
        if with_state:
            output, new_state = output
            _warn_if_training(state, new_state)
        return output


def _has_state(
    transformed: Transformed | TransformedWithState,
) -> TypeGuard[TransformedWithState]:
    import haiku as hk

    return isinstance(transformed, hk.TransformedWithState)


def _takes_rng(transformed: Transformed | TransformedWithState) -> bool:
    # init takes (rng, *inputs); apply takes params, perhaps a state, perhaps an rng, the inputs.
    inputs = len(inspect.signature(transformed.init).parameters) - 1
    num_leading = len(inspect.signature(transformed.apply).parameters) - inputs
    return num_leading > 1 + _has_state(transformed)


def _check_transform(transformed: object) -> None:
    try:
        import haiku as hk
    except ImportError as error:
        raise ImportError(
            "from_haiku needs the package dm-haiku. Install it: pip install dm-haiku"
        ) from error
    if not isinstance(transformed, hk.Transformed | hk.TransformedWithState):
        raise TypeError(
            message(
                "`transformed` is not a Haiku transform",
                expected="the result of hk.transform or hk.transform_with_state",
                got=type(transformed).__name__,
                remedy="pass hk.transform(f) with a function f of one latent; for "
                "hk.multi_transform pass hk.Transformed(f.init, one of f.apply)",
            )
        )


def _check_variables(params: object, state: object, with_state: bool) -> None:
    if with_state and state is None:
        raise ValueError(
            message(
                "hk.transform_with_state needs its state, and none was given",
                remedy="pass it as the third argument: params, state = f.init(key, latent); "
                "from_haiku(f, params, state)",
            )
        )
    if state is not None and not with_state:
        raise ValueError(
            message(
                "hk.transform takes no state, and one was given",
                remedy="leave it out, or build the network with hk.transform_with_state",
            )
        )
    call = "params, state" if with_state else "params"
    remedy = f"pass what {call} = f.init(key, latent) gives, or trained values of that structure"
    for name, tree in (("params", params), ("state", state))[: 1 + with_state]:
        if not isinstance(tree, Mapping):
            what, got = f"`{name}` is not a mapping", type(tree).__name__
            raise TypeError(message(what, expected="what init returns", got=got, remedy=remedy))


def _warn_if_training(state: PyTree[jax.Array], new_state: PyTree[jax.Array]) -> None:
    old = [x for x in jax.tree.leaves(state) if eqx.is_inexact_array(x)]
    new = [x for x in jax.tree.leaves(new_state) if eqx.is_inexact_array(x)]
    if len(old) != len(new) or any(a is not b for a, b in zip(old, new, strict=True)):
        warnings.warn(
            message(
                "The Haiku network updates its state when it is applied, as batch normalisation "
                "does in training mode; the update is discarded, and statistics of a batch of one "
                "are useless",
                remedy="pass the network's switch, for example from_haiku(..., is_training=False)",
            ),
            stacklevel=2,
        )
