"""Flax networks, Linen and NNX, as unbatched callable pytrees."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PyTree

from numpyro_genprior.errors import NetworkError, message
from numpyro_genprior.networks.adapter import NetworkAdapter, as_arrays, hashable_keywords
from numpyro_genprior.networks.static import Static

if TYPE_CHECKING:
    from flax import linen, nnx  # an optional dependency

__all__ = ["from_flax", "from_nnx"]


def _draws_random_numbers(name: str, switch: str) -> NetworkError:
    what = message(
        "The Flax network draws random numbers when it is applied",
        expected="a function of the latent alone",
        remedy=f"remove dropout or pass its switch, for example {name}(..., {switch}); noise of "
        "the decoder is VAEPrior's `scale`",
    )
    return NetworkError(what)


def _require_flax(name: str) -> None:
    try:
        import flax  # noqa: F401
    except ImportError as error:
        remedy = "install it: pip install numpyro_genprior[flax]"
        raise ImportError(message(f"{name} needs the package flax", remedy=remedy)) from error


def from_flax(
    module: linen.Module,
    variables: Mapping[str, Mapping[str, PyTree[ArrayLike]]],
    *,
    method: str | Callable[..., Any] | None = None,
    batched: bool = False,
    **apply_kwargs: Hashable,
) -> NetworkAdapter:
    """Make a network from a Flax Linen module and its variables.

    Parameters
    ----------
    module
        A Linen module of one latent, of the latent's shape and without a batch axis, and of a
        condition if there is one; it returns one event or ``(loc, scale)``.
    variables
        What ``module.init`` returns, trained or not: ``{"params": ..., "batch_stats": ...}``. All
        collections are read and none is updated.
    method
        The method to apply, as in ``module.apply``: ``method="decode"`` uses the decoder of a
        VAE. None stands for ``__call__``.
    batched
        True for a network that expects a leading batch axis (image convolutions, flattening): one
        of length one is added to every input and removed from every output.
    **apply_kwargs
        Switches that the method takes by keyword, such as ``train=False``; hashable.

    Returns
    -------
    A callable pytree ``net(latent)`` or ``net(latent, condition)``; its leaves are the variables.
    Equal modules share a compiled program.

    Raises
    ------
    TypeError
        If ``module`` is not a Linen module, or variables or switches have the wrong type.
    ValueError
        On the first call, if the network draws random numbers, updates batch statistics or lacks
        variables.
    ImportError
        If Flax is not installed (``pip install numpyro_genprior[flax]``).

    Notes
    -----
    **Fails when** the network is in training mode, which raises an error.

    Examples
    --------
    >>> import flax.linen as nn, jax
    >>> from numpyro_genprior.networks import from_flax
    >>> module = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(3)])
    >>> net = from_flax(module, module.init(jax.random.key(0), jax.numpy.zeros(2)))
    >>> net(jax.numpy.ones(2)).shape
    (3,)
    """
    _require_flax("from_flax")
    import flax.linen as nn

    _check_module(module, nn.Module, "Linen", "use from_nnx(module) for an nnx.Module")
    remedy = 'pass what module.init(key, latent) returns, or {"params": trained parameters}'
    _check_collections(variables, remedy)
    arrays = as_arrays("variables", dict(variables), remedy)
    keywords = hashable_keywords(apply_kwargs)
    return _LinenNetwork(arrays, batched, Static(module), Static(method), keywords)


@final
class _LinenNetwork(NetworkAdapter):
    variables: dict[str, PyTree[jax.Array]]
    batched: bool = eqx.field(static=True)
    module: Static[linen.Module] = eqx.field(static=True)
    method: Static[str | Callable[..., Any] | None] = eqx.field(static=True)
    keywords: tuple[tuple[str, Hashable], ...] = eqx.field(static=True)

    def apply(self, *inputs: jax.Array) -> PyTree[jax.Array]:
        import flax.errors as errors

        variables, options = self.variables, dict[str, Any](self.keywords)
        try:
            return self.module.value.apply(
                variables, *inputs, method=self.method.value, mutable=False, **options
            )
        except errors.InvalidRngError as error:
            raise _draws_random_numbers("from_flax", "train=False") from error
        except errors.ModifyScopeVariableError as error:
            raise NetworkError(
                message(
                    "The Flax network updates its variables when it is applied, as batch "
                    "normalisation does in training mode",
                    expected="a fixed function of the latent",
                    remedy="pass the network's switch, for example from_flax(..., train=False)",
                )
            ) from error
        except (
            errors.ApplyScopeInvalidVariablesStructureError,
            errors.ScopeCollectionNotFound,
            errors.ScopeParamNotFoundError,
            errors.ScopeVariableNotFoundError,
        ) as error:
            raise NetworkError(
                message(
                    f"The Flax network does not find its variables ({error})",
                    got=f"the collections {sorted(variables)}",
                    remedy="pass all that module.init returns: from_flax(module, "
                    '{"params": ..., "batch_stats": ...})',
                )
            ) from error


def from_nnx(
    module: nnx.Module,
    *,
    method: str | None = None,
    batched: bool = False,
    **call_kwargs: Hashable,
) -> NetworkAdapter:
    """Make a network from a Flax NNX module, in evaluation mode.

    Parameters
    ----------
    module
        An NNX module of one latent, of the latent's shape and without a batch axis, and of a
        condition if there is one; it returns one event or ``(loc, scale)``. It is copied and left
        unchanged.
    method
        Name of the method to call, for example ``"decode"``; None stands for ``__call__``.
    batched
        True for a network that expects a leading batch axis, as for `from_flax`.
    **call_kwargs
        Switches that the method takes by keyword; hashable.

    Returns
    -------
    A callable pytree ``net(latent)`` or ``net(latent, condition)``; its leaves are the variables
    without random streams. Modules of one structure share a compiled program.

    Raises
    ------
    TypeError
        If ``module`` is not an NNX module or a switch has the wrong type.
    ValueError
        If the module has no such method; on the first call, if the network draws random numbers or
        updates batch statistics even after ``module.eval()``, which is applied to the copy.
    ImportError
        If Flax is not installed (``pip install numpyro_genprior[flax]``).

    Notes
    -----
    **Fails when** a module has a training switch that ``module.eval()`` does not know: pass it by
    keyword, or set it before.

    Examples
    --------
    >>> import jax
    >>> from flax import nnx
    >>> from numpyro_genprior.networks import from_nnx
    >>> net = from_nnx(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    >>> net(jax.numpy.ones(2)).shape
    (3,)
    """
    _require_flax("from_nnx")
    from flax import nnx

    remedy = "use from_flax(module, variables) for a Linen module"
    _check_module(module, nnx.Module, "NNX", remedy)
    if method is not None and not callable(getattr(module, method, None)):
        raise ValueError(
            message(
                f"{type(module).__name__} has no method {method!r}",
                remedy="pass the name of a method of the module, or leave it out for __call__",
            )
        )
    copy = nnx.clone(module)
    copy.eval()
    graphdef, rng_state, rest = nnx.split(copy, nnx.RngState, ...)
    leaves, treedef = jax.tree.flatten(rng_state)
    streams = tuple(_describe_stream(leaf) for leaf in leaves)
    variables = as_arrays("module", rest, "pass a module with arrays in its variables")
    keywords = hashable_keywords(call_kwargs)
    return _NNXNetwork(variables, batched, graphdef, treedef, streams, method, keywords)


@final
class _NNXNetwork(NetworkAdapter):
    variables: PyTree[jax.Array]
    batched: bool = eqx.field(static=True)
    graphdef: Any = eqx.field(static=True)
    rng_treedef: Any = eqx.field(static=True)
    rng_streams: tuple[_RngStream, ...] = eqx.field(static=True)
    method: str | None = eqx.field(static=True)
    keywords: tuple[tuple[str, Hashable], ...] = eqx.field(static=True)

    def apply(self, *inputs: jax.Array) -> PyTree[jax.Array]:
        from flax import nnx

        # The streams get arbitrary contents: a network that draws from them raises an error below.
        rng_state = self.rng_treedef.unflatten([_make_stream(s) for s in self.rng_streams])
        module = nnx.merge(self.graphdef, rng_state, self.variables)
        before = _rng_and_batch_statistics(module)
        function = module if self.method is None else getattr(module, self.method)
        output = function(*inputs, **dict(self.keywords))
        rng_changed, statistics_changed = (
            any(a is not b for a, b in zip(*pair, strict=True))
            for pair in zip(before, _rng_and_batch_statistics(module), strict=True)
        )
        if rng_changed:
            raise _draws_random_numbers("from_nnx", "deterministic=True")
        if statistics_changed:
            raise NetworkError(
                message(
                    "The NNX network updates its batch statistics even in evaluation mode",
                    expected="a fixed function of the latent",
                    remedy="leave use_running_average to module.eval(), or pass the "
                    "network's own switch: from_nnx(..., train=False)",
                )
            )
        return output


def _rng_and_batch_statistics(module: nnx.Module) -> list[list[jax.Array]]:
    from flax import nnx

    return [jax.tree.leaves(s) for s in nnx.state(module, nnx.RngState, nnx.BatchStat, ...)[:2]]


class _RngStream(NamedTuple):
    """What is needed to rebuild the key, or the counter, of a random stream."""

    shape: tuple[int, ...]
    dtype: str
    key_impl: Hashable  # None for a counter


def _describe_stream(leaf: jax.Array) -> _RngStream:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return _RngStream(jax.random.key_data(leaf).shape, "uint32", jax.random.key_impl(leaf))
    return _RngStream(leaf.shape, str(leaf.dtype), None)


def _make_stream(stream: _RngStream) -> jax.Array:
    data = jnp.zeros(stream.shape, stream.dtype)
    return data if stream.key_impl is None else jax.random.wrap_key_data(data, impl=stream.key_impl)


def _check_module(module: object, cls: type, name: str, remedy: str) -> None:
    if not isinstance(module, cls):
        is_class = isinstance(module, type)
        raise TypeError(
            message(
                f"`module` is not a Flax {name} module",
                expected=f"an instance of flax.{name.lower()}.Module",
                got=f"the class {module.__name__}" if is_class else type(module).__name__,
                remedy=f"{remedy}, and pass an instance, not a class",
            )
        )


def _check_collections(variables: object, remedy: str) -> None:
    got = type(variables).__name__
    if isinstance(variables, Mapping):
        if all(isinstance(collection, Mapping) for collection in variables.values()):
            return
        got = ", ".join(f"{name}: {type(value).__name__}" for name, value in variables.items())
    what = "`variables` does not map collections to mappings"
    raise TypeError(message(what, got=got, remedy=remedy))
