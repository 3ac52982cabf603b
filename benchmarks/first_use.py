"""What a first use costs: the import, and the first call of public functions, which traces and compiles them."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from timing import Call, Row, compare

import rlrazor as rz


def import_cost(runs: int) -> Row:
    """`import jax, rlrazor` against `import jax`, in fresh processes."""
    # An installed package has its bytecode; without it every import would compile the sources.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> Call:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    ours, theirs = run("import jax, rlrazor"), run("import jax")
    ours()
    return compare("`import jax, rlrazor`", ours, "`import jax`", theirs, runs, 1.05)


def calls() -> dict[str, Callable[[], Any]]:
    """A call of every function of the core, on few outcomes; those of objectives compile as a divergence does."""
    keys = jax.random.split(jax.random.key(0))
    log_p, log_q = (jax.nn.log_softmax(jax.random.normal(key, (5,))) for key in keys)
    reward, accept = jnp.array([1.0, 0.3, -0.5, 0.8, 0.0]), jnp.array([True, False, False, True, False])
    features, times = jnp.stack([jnp.arange(5.0), reward], axis=-1), jnp.array([0.0, 1.0])

    def loss(log_policy: jax.Array) -> jax.Array:
        return rz.kl_divergence(log_q, log_policy)

    return {
        "entropy": lambda: rz.entropy(log_p),
        "kl_divergence": lambda: rz.kl_divergence(log_p, log_q),
        "jensen_shannon_divergence": lambda: rz.jensen_shannon_divergence(log_p, log_q),
        "renyi_divergence": lambda: rz.renyi_divergence(log_p, log_q, 2.0),
        "total_variation": lambda: rz.total_variation(log_p, log_q),
        "hellinger_distance": lambda: rz.hellinger_distance(log_p, log_q),
        "log_partition": lambda: rz.log_partition(log_p, reward, 0.5),
        "tilt": lambda: rz.tilt(log_p, reward, 0.5),
        "best_of_n": lambda: rz.best_of_n(log_p, reward, 4.0),
        "tilt_to_reward": lambda: rz.tilt_to_reward(log_p, reward, 0.6),
        "tilt_to_kl": lambda: rz.tilt_to_kl(log_p, reward, 0.1),
        "frontier": lambda: rz.frontier(log_p, reward, jnp.array([0.1, 1.0])),
        "i_projection": lambda: rz.i_projection(log_p, features, jnp.exp(log_q) @ features),
        "m_projection": lambda: rz.m_projection(log_q, log_p, features),
        "forward_kl_flow": lambda: rz.forward_kl_flow(log_p, log_q, 0.7),
        "reverse_kl_flow": lambda: rz.reverse_kl_flow(log_p, log_q, 0.7),
        "reward_flow": lambda: rz.reward_flow(log_p, reward, 0.7),
        "success_gradient_path": lambda: rz.success_gradient_path(log_p, accept, 0.9),
        "regularized_reward_flow": lambda: rz.regularized_reward_flow(log_p, log_q, reward, 0.3, 0.7),
        "mirror_descent": lambda: rz.mirror_descent(log_p, log_q, reward, 0.3, 0.1, 3.0),
        "gradient_flow": lambda: rz.gradient_flow(loss, log_p, times),
        "gradient_flow that stops": lambda: rz.gradient_flow(loss, log_p, times, stop=lambda logits: logits[0] - 9),
    }


def first_calls(number: int | None = None) -> list[tuple[str, float, float]]:
    """(name, seconds of the first jitted call, seconds of another) of a number of them or all, the slowest first.

    Diffrax and optimistix are imported before: whoever integrates a flow pays for that once, in some 0.5 s.
    """
    importlib.import_module("diffrax")
    jnp.zeros(3).block_until_ready()
    found = []
    for name, call in list(calls().items())[:number]:
        program = jax.jit(call)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            jax.block_until_ready(program())
            times.append(time.perf_counter() - start)
        found.append((name, *times))
    return sorted(found, key=lambda row: -row[1])
