"""A training step whose vocabulary is spread over devices: rlrazor's functions in a loss under JAX's own sharding.

The mesh has two axes: "data" splits the batch and "vocabulary" the logits' last axis, so that no device ever holds a
whole row of logits, `[batch, sequence, vocabulary]`. The functions need nothing for it. Their sums over the outcomes
become sums over devices of a number for each row, and the losses are those of one device, to rounding.

    loss = KL(target || policy) + beta KL(policy || ref) + GRPO's clipped loss on tokens that the reference sampled

with target = ref exp(reward / beta) / Z, the optimum of E[reward] - beta KL(policy || ref).

    python examples/sharded_loss.py      # on 8 virtual devices of the CPU, or on all devices of an accelerator
    python examples/sharded_loss.py 1    # on 1 device of the CPU

It needs `pip install 'rlrazor[experiments]'`, for flax.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

import rlrazor as rz

BATCH, SEQUENCE, VOCABULARY, WIDTH = 8, 16, 512, 32
GROUP_SIZE, BETA, CLIP = 8, 0.5, 0.2
NUM_STEPS, EVERY = 40, 8
Logits = Float[Array, "batch sequence vocabulary"]


class Head(nnx.Module):
    """Tokens to the logits of the next one."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.hidden = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, VOCABULARY, rngs=rngs)

    def __call__(self, inputs: Int[Array, "batch sequence"]) -> Logits:
        """The logits."""
        return self.out(jax.nn.relu(self.hidden(self.embedding(inputs))))


def make_mesh() -> jax.sharding.Mesh:
    """All devices: two rows of them for the batch if they are even in number, and the rest for the vocabulary."""
    devices = jax.device_count()
    rows = 2 if devices % 2 == 0 else 1
    # Automatic axes, not the explicit ones of JAX's default, leave it to the compiler how operations are split.
    return jax.make_mesh((rows, devices // rows), ("data", "vocabulary"), axis_types=(AxisType.Auto,) * 2)


def place(params: Any, mesh: jax.sharding.Mesh) -> Any:
    """Parameters, or the optimizer's state, with every axis of the vocabulary split."""

    def put(leaf: Array) -> Array:
        parts = ("vocabulary" if length == VOCABULARY else None for length in leaf.shape)
        placed: Array = jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*parts)))
        return placed

    return jax.tree.map(put, params)


def main(devices: int) -> None:
    """Trains, and prints losses and where the logits live."""
    jax.config.update("jax_num_cpu_devices", devices)
    mesh = make_mesh()
    rows = NamedSharding(mesh, PartitionSpec("data", None, "vocabulary"))
    graph, params = nnx.split(Head(nnx.Rngs(0)))
    params = place(params, mesh)
    inputs = jax.random.randint(jax.random.key(1), (BATCH, SEQUENCE), 0, VOCABULARY)
    inputs = jax.device_put(inputs, NamedSharding(mesh, PartitionSpec("data")))

    def log_policy_of(params: Any) -> Logits:
        logits = jax.lax.with_sharding_constraint(nnx.merge(graph, params)(inputs), rows)
        return rz.softmax_policy(logits)

    @jax.jit
    def prepare(params: Any) -> tuple[Logits, Array, Array]:
        log_ref = log_policy_of(params)
        accept = (jnp.arange(VOCABULARY) - inputs[..., None]) % 7 == 0  # one token in seven is right
        # Drawn once, so that a loss that falls is learning and not luck; the clip keeps the policy near them.
        shape = (GROUP_SIZE, BATCH, SEQUENCE)
        tokens = jnp.moveaxis(jax.random.categorical(jax.random.key(2), log_ref, shape=shape), 0, -1)
        return log_ref, jax.lax.with_sharding_constraint(accept, rows), tokens

    log_ref, accept, tokens = prepare(params)

    def loss(params: Any, log_ref: Logits, accept: Array, tokens: Array) -> Float[Array, ""]:
        log_policy = log_policy_of(params)
        log_target = rz.tilt(log_ref, accept, BETA)
        distilled = rz.kl_divergence(log_target, log_policy).mean()
        drift = rz.kl_divergence(log_policy, log_ref).mean()
        log_prob, log_prob_ref = (rz.log_prob(x[..., None, :], tokens) for x in (log_policy, log_ref))
        advantage = rz.grpo_advantage((tokens - inputs[..., None]) % 7 == 0)
        grpo = rz.ppo_clip_loss(log_prob, log_prob_ref, advantage, CLIP).mean()
        return distilled + BETA * drift + grpo

    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params: Any, state: Any, *data: Array) -> tuple[Any, Any, Float[Array, ""]]:
        value, gradient = jax.value_and_grad(loss)(params, *data)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = place(optimizer.init(params), mesh)
    print(f"logits {log_ref.shape} {log_ref.sharding.spec} over {len(log_ref.sharding.device_set)} devices,")
    print(f"of which each holds {log_ref.addressable_shards[0].data.shape}")
    for count in range(NUM_STEPS + 1):
        params, state, value = step(params, state, log_ref, accept, tokens)
        if count % EVERY == 0:
            print(f"step {count:2} loss {value:.6f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
