"""Simulations: two-mode runs against their random numbers, gradient flows against SciPy's, answers of many tokens."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from timing import Row, compare, compiled

import rlrazor as rz
from rlrazor.tasks import two_mode

NUM_SEEDS, NUM_STEPS, NUM_SAMPLES = 16, 200, 1000
NUM_FLOWS, NUM_OUTCOMES, END, TOLERANCE = 1000, 10, 5.0, 1e-6


def rl_runs(setting: two_mode.Setting, keys: jax.Array, num_steps: int = NUM_STEPS) -> two_mode.Run:
    """The published RL runs, bi-modal, a seed a key."""
    options = {"direction": two_mode.REVERSE, "learning_rate": 0.01, "slow_factor": 0.005}
    return two_mode.sampled_runs(setting, keys, **options, num_steps=num_steps, num_samples=NUM_SAMPLES)


def two_mode_runs(runs: int, num_seeds: int = NUM_SEEDS) -> Row:
    """Seeded RL runs as published, against drawing what they sample; both float32."""
    keys = jax.random.split(jax.random.key(0), num_seeds)
    setting = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), two_mode.bimodal_setting())

    def draw(keys: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            def update(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
                return total + jax.random.normal(key, (NUM_SAMPLES,), jnp.float32).sum(), None

            return jax.lax.scan(update, jnp.zeros((), jnp.float32), jax.random.split(key, NUM_STEPS))[0]

        return jax.vmap(one)(keys)

    what = f"{num_seeds} two-mode RL runs, {NUM_STEPS} updates of {NUM_SAMPLES:,} samples"
    return compare(
        what, compiled(partial(rl_runs, setting), keys), "their normal numbers", compiled(draw, keys), runs, 3.0
    )


def gradient_flows(runs: int, num_flows: int = NUM_FLOWS) -> Row:
    """Forward-KL flows to random targets, vmapped, against `solve_ivp` in a loop at the same tolerance."""
    targets = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (num_flows, NUM_OUTCOMES)))
    times = jnp.array([0.0, END])

    def flow(log_target: jax.Array) -> jax.Array:
        there = rz.gradient_flow(
            lambda log_policy: rz.kl_divergence(log_target, log_policy),
            jnp.zeros(NUM_OUTCOMES, log_target.dtype),
            times.astype(log_target.dtype),
            tolerance=TOLERANCE,
        )
        return there.log_policy[-1]

    probabilities = np.exp(np.asarray(targets, float))

    def scipy_flows() -> np.ndarray:
        def velocity(_: float, logits: np.ndarray, target: np.ndarray) -> np.ndarray:
            weights = np.exp(logits - logits.max())
            return target - weights / weights.sum()

        return np.array(
            [
                solve_ivp(velocity, (0.0, END), np.zeros(NUM_OUTCOMES), args=(p,), rtol=TOLERANCE, atol=TOLERANCE).y[
                    :, -1
                ]
                for p in probabilities
            ]
        )

    ours = compiled(jax.vmap(flow), targets)
    found, logits = np.exp(np.asarray(jax.jit(jax.vmap(flow))(targets))), scipy_flows()
    theirs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, theirs, atol=1e-4)
    what = f"{num_flows:,} flows of {NUM_OUTCOMES} logits"
    return compare(what, ours, "SciPy's `solve_ivp` in a loop", scipy_flows, max(runs // 5, 3), 1 / 30)


def soft_dynamic_programming(runs: int, horizon: int = 256, tokens: int = 1000, states: int = 64) -> Row:
    """The value of `tilt_tokens` with its gradient in every token's reward, against the value alone; float32."""
    of_world, of_ref, of_reward = jax.random.split(jax.random.key(0), 3)
    world = rz.automaton(jax.random.randint(of_world, (states, tokens), 0, states))
    log_ref = jax.nn.log_softmax(jax.random.normal(of_ref, (states, tokens)))
    reward = jax.random.normal(of_reward, (states, tokens))

    def value(reward: jax.Array) -> jax.Array:
        found: jax.Array = rz.tilt_tokens(world, log_ref, reward, 1.0, horizon).log_partition[0, 0]
        return found

    gradient, forward = (compiled(function, reward) for function in (jax.value_and_grad(value), value))
    what = f"soft dynamic programming with its gradient, {horizon} x {tokens:,} x {states}"
    return compare(what, gradient, "its value alone", forward, runs)


def rows(runs: int, *, small: bool = False) -> list[Row]:
    """All of them."""
    if small:
        return [two_mode_runs(runs, 2), gradient_flows(runs, 4), soft_dynamic_programming(runs, 4, 8, 3)]
    return [two_mode_runs(runs), gradient_flows(runs), soft_dynamic_programming(runs)]
