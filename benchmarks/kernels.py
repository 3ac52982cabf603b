"""The kernels over a vocabulary, against the formula that is wrong at the edges, against PyTorch, and in memory.

Both arguments are float32. "Plain" is the textbook formula in the same XLA: it has no infinity, loses small divergences
and large rewards, and gives NaN where an outcome is impossible.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import Call, Row, compare, compiled

import rlrazor as rz
from rlrazor._numerics import kl_terms

SHAPES = (64, 131072), (4096, 1000)
BETA, GENTLE_BETA, ORDER, NUM_DRAWS = 0.7, 70.0, 2.0, 16.0
Function = Callable[..., Any]


def plain_kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


def plain_jensen_shannon(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    return (plain_kl(log_p, log_m) + plain_kl(log_q, log_m)) / 2


def plain_total_variation(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)).sum(-1) / 2


def plain_hellinger(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return jnp.sqrt(((jnp.exp(log_p / 2) - jnp.exp(log_q / 2)) ** 2).sum(-1) / 2)


def plain_renyi(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(ORDER * log_p - (ORDER - 1) * log_q, axis=-1) / (ORDER - 1)


def plain_tilt(log_ref: jax.Array, reward: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(log_ref + reward / BETA)


def plain_log_partition(beta: float) -> Function:
    return lambda log_ref, reward: jax.nn.logsumexp(log_ref + reward / beta, axis=-1)


def bare_sort(log_ref: jax.Array, reward: jax.Array) -> list[jax.Array]:
    return list(jax.lax.sort((reward, log_ref, log_ref), num_keys=1))


def renyi(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return rz.renyi_divergence(log_p, log_q, ORDER)


def gradient(divergence: Function) -> Function:
    return jax.grad(lambda log_p, log_q: divergence(log_p, log_q).sum(), argnums=(0, 1))


def tilted(function: Function, beta: float) -> Function:
    return lambda log_ref, reward: function(log_ref, reward, beta)


class Kernel(NamedTuple):
    """What is measured, against what, and on which arguments.

    Attributes:
        what: is called.
        ours: the function.
        theirs: the peer.
        second: what stands beside the reference: a policy that is far, one that is close, or a reward.
        aim: the largest ratio that is aimed at; None where there is none.
        peer: what the peer is called.
        share: of the runs, since some take seconds.
    """

    what: str
    ours: Function
    theirs: Function
    second: str
    aim: float | None
    peer: str = "plain"
    share: float = 1.0


KERNELS = (
    Kernel("`kl_divergence`", rz.kl_divergence, plain_kl, "far", 1.3),
    Kernel("its gradient, both arguments", gradient(rz.kl_divergence), gradient(plain_kl), "far", 1.3),
    Kernel("`tilt`", tilted(rz.tilt, BETA), plain_tilt, "reward", 1.5),
    Kernel("`log_partition`", tilted(rz.log_partition, BETA), plain_log_partition(BETA), "reward", 1.5),
    Kernel(
        "`log_partition`, beta above all rewards",
        tilted(rz.log_partition, GENTLE_BETA),
        plain_log_partition(GENTLE_BETA),
        "reward",
        1.5,
    ),
    Kernel("`jensen_shannon_divergence`", rz.jensen_shannon_divergence, plain_jensen_shannon, "far", 1.5),
    Kernel("`total_variation`", rz.total_variation, plain_total_variation, "far", 1.5),
    Kernel("`hellinger_distance`", rz.hellinger_distance, plain_hellinger, "far", 1.5),
    Kernel("`renyi_divergence` 2", renyi, plain_renyi, "far", 1.5),
    Kernel("`renyi_divergence` 2 of policies that nearly agree", renyi, plain_renyi, "close", 1.5),
    Kernel(
        "`best_of_n`",
        tilted(rz.best_of_n, NUM_DRAWS),
        bare_sort,
        "reward",
        1.5,
        peer="sort of three operands",
        share=0.2,
    ),
)


def tilt_with_one_choice(log_ref: jax.Array, reward: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(jnp.where(log_ref == -jnp.inf, -jnp.inf, log_ref + reward / BETA))


def dot_product(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    return jnp.einsum("rk,rk->r", log_p, log_q)


# What XLA allows: it fuses a sum of products and a bare softmax into one call of a library, but no choice between two
# formulas. A choice is a loop of its own, which writes an array that the library then reads. A dot product
# only reads both arguments.
LIMITS = (
    Kernel("the terms of `kl_divergence`, not yet summed", kl_terms, plain_kl, "far", None),
    Kernel("the plain tilt with one choice in it", tilt_with_one_choice, plain_tilt, "reward", None),
    Kernel("`kl_divergence`", rz.kl_divergence, dot_product, "far", None, peer="a dot product"),
)


def arguments(shape: tuple[int, int]) -> dict[str, tuple[jax.Array, jax.Array]]:
    """A reference, and beside it a far policy, a close one or a reward."""
    keys = jax.random.split(jax.random.key(0), 3)
    log_ref = jax.nn.log_softmax(jax.random.normal(keys[0], shape, jnp.float32))
    far = jax.nn.log_softmax(jax.random.normal(keys[1], shape, jnp.float32))
    reward = jax.random.normal(keys[2], shape, jnp.float32)
    close = jax.nn.log_softmax(log_ref + 0.1 * reward)
    return jax.block_until_ready({"far": (log_ref, far), "close": (log_ref, close), "reward": (log_ref, reward)})


def has_torch() -> bool:
    """Whether the extra `bench` is installed."""
    return importlib.util.find_spec("torch") is not None


def torch_calls(log_p: np.ndarray, second: np.ndarray, what: str) -> list[Call]:
    """The kernel in PyTorch, if it has a function for it."""
    import torch

    a, b = torch.from_numpy(np.array(log_p)), torch.from_numpy(np.array(second))
    theirs: dict[str, Call] = {
        "`kl_divergence`": lambda: torch.nn.functional.kl_div(b, a, reduction="none", log_target=True).sum(-1),
        "`tilt`": lambda: torch.log_softmax(a + b / BETA, -1),
    }
    return [theirs[what]] if what in theirs else []


def rows(runs: int, shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[Row]:
    """Every kernel at every shape, then what limits it, and PyTorch."""
    found = []
    for shape in shapes:
        given, where = arguments(shape), f"[{shape[0]:,}, {shape[1]:,}]"
        for kernel in KERNELS + LIMITS:
            ours, theirs = (compiled(function, *given[kernel.second]) for function in (kernel.ours, kernel.theirs))
            few = max(int(kernel.share * runs), min(runs, 3))
            found.append(compare(f"{kernel.what} {where}", ours, kernel.peer, theirs, few, kernel.aim))
        for kernel in KERNELS if has_torch() else ():
            for theirs in torch_calls(*map(np.asarray, given[kernel.second]), kernel.what):
                theirs()
                ours = compiled(kernel.ours, *given[kernel.second])
                found.append(compare(f"{kernel.what} {where}", ours, "PyTorch", theirs, runs, 1.0))
    return found


def memory(shape: tuple[int, int] = SHAPES[1]) -> list[tuple[str, float]]:
    """Temporary memory of every kernel, in arrays of the size of one argument."""
    given, found = arguments(shape), []
    for kernel in KERNELS:
        size = jax.jit(kernel.ours).lower(*given[kernel.second]).compile().memory_analysis()
        found.append((kernel.what, size.temp_size_in_bytes / given[kernel.second][0].nbytes))
    return found


def sixteen_bits(shape: tuple[int, int] = (64, 32768)) -> list[tuple[float, float, float]]:
    """(KL, our relative error, the plain formula's) from bfloat16, both summed in float32; medians over rows."""
    found = []
    for distance in (0.05, 0.15, 0.5, 1.5):
        keys = jax.random.split(jax.random.key(1))
        logits, noise = (jax.random.normal(key, shape, jnp.float32) for key in keys)
        log_p, log_q = jax.nn.log_softmax(2 * logits), jax.nn.log_softmax(2 * logits + distance * noise)
        short = log_p.astype(jnp.bfloat16), log_q.astype(jnp.bfloat16)
        exact, ours = rz.kl_divergence(log_p, log_q), rz.kl_divergence(*short)
        plain = plain_kl(*(x.astype(jnp.float32) for x in short))
        errors = (float(jnp.median(jnp.abs(x - exact) / exact)) for x in (ours, plain))
        found.append((float(exact.mean()), *errors))
    return found
