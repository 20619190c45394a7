"""Measurements that all benchmarks share: cost of a compiled function, run time, MCMC steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Cost:
    """Cost of one compiled function.

    Attributes
    ----------
    flops, bytes_accessed
        By XLA's ``cost_analysis``.
    memory
        Bytes of temporaries, by XLA's ``memory_analysis``.
    compile_seconds
        Tracing, lowering and compiling: the minimum over several tries.
    run_seconds
        One call, after warm-up: the minimum over several batches of calls.
    """

    flops: float
    bytes_accessed: float
    memory: float
    compile_seconds: float
    run_seconds: float


def cost(make: Callable[[], Callable[..., Any]], *arguments: Any, tries: int = 5) -> Cost:
    """Measure ``jax.jit(make())(*arguments)``; `make` returns a new function for each try."""
    compiled, seconds = None, []
    for _ in range(tries):
        start = time.perf_counter()
        compiled = jax.jit(make()).lower(*arguments).compile()
        seconds.append(time.perf_counter() - start)
    if compiled is None:
        raise ValueError("cost needs at least one try. Pass tries=5.")
    analysis: Any = compiled.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    memory: Any = compiled.memory_analysis()
    return Cost(
        flops=analysis.get("flops", float("nan")),
        bytes_accessed=analysis.get("bytes accessed", float("nan")),
        memory=memory.temp_size_in_bytes if memory is not None else float("nan"),
        compile_seconds=min(seconds),
        run_seconds=run_seconds(compiled, *arguments),
    )


def run_seconds(function: Callable[..., Any], *arguments: Any, batches: int = 7) -> float:
    """Seconds of one call after a warm-up: the minimum over batches of the mean of a batch."""
    jax.block_until_ready(function(*arguments))
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    calls = max(1, min(200, int(0.05 / max(time.perf_counter() - start, 1e-7))))
    best = float("inf")
    for _ in range(batches):
        start = time.perf_counter()
        for _ in range(calls):
            result = function(*arguments)
        jax.block_until_ready(result)
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def transitions(kernel: Any, length: int) -> Callable[..., Any]:
    """A compiled run of `length` transitions of an MCMC kernel (``MCMC.run`` recompiles each time).

    The result is a function of a state and the model's arguments. It returns the final state, and
    for each transition ``z`` and ``num_steps``.
    """

    def step(state: Any, arguments: Any) -> Any:
        state = kernel.sample(state, arguments, {})
        return state, (state.z, state.num_steps)

    return jax.jit(
        lambda state, arguments: jax.lax.scan(
            lambda state, _: step(state, arguments), state, length=length
        )
    )


def show_ratios(title: str, ours: Cost, peer: Cost) -> None:
    """Print one line of ratios, ours over the peer's (below one: ours is cheaper)."""
    ratio = {
        "flops": ours.flops / peer.flops,
        "bytes": ours.bytes_accessed / peer.bytes_accessed,
        "memory": ours.memory / peer.memory if peer.memory else float("nan"),
        "compile": ours.compile_seconds / peer.compile_seconds,
        "run": ours.run_seconds / peer.run_seconds,
    }
    line = "  ".join(f"{name} {value:6.3f}" for name, value in ratio.items())
    print(
        f"{title:<44} {line}  | ours: compile {ours.compile_seconds:.2f} s, "
        f"run {ours.run_seconds * 1e6:.0f} µs"
    )
