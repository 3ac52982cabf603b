"""A training step of ParityMNIST: ours, PyTorch eager, and the floor that its matrix products set.

`python benchmarks/parity.py` prints medians over paired runs in one process, on all cores: the same network, optimiser,
batch and sampling, no evaluation; ours with a host device for each core, as `sweep` trains. The floor is the arithmetic
of the step's matrix products, forward and backward, at the rate that a large product reaches in the same process. Needs
the extra `bench`.
"""

import os
import statistics
from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import torch
from core import paired, seconds
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from rlrazor.tasks import images, parity

NUM_STEPS, NUM_PAIRS = 200, 7
NUM_TRAININGS = 2 * (os.cpu_count() or 1)


def floor_seconds() -> float:
    """Of one step: its multiplications and additions over the rate of a 2048 x 2048 product."""
    widths = (parity.NUM_PIXELS + 1, *parity.WIDTHS, parity.NUM_LABELS)
    products = [a * b for a, b in pairwise(widths)]
    operations = 2 * parity.BATCH_SIZE * (3 * sum(products) - products[0])  # the images need no gradient
    size = 2048
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    return (
        operations * statistics.median(seconds(lambda: product(x).block_until_ready()) for _ in range(9)) / 2 / size**3
    )


def ours(world: parity.World, base: parity.Base, method: str) -> Callable[[], object]:
    """Several trainings in one program, shared out over the devices and after each other on each."""
    index = jnp.array(parity.METHODS.index(method))
    optimizer = parity._adam(lambda _: jnp.float32(1e-3))
    mesh = Mesh(np.array(jax.local_devices()), ("devices",))

    def trainings(world: parity.World, base: parity.Base, keys: jax.Array) -> parity.Params:
        def one(key: jax.Array) -> parity.Params:
            step = parity._update(parity._method_loss(world, base, index), optimizer)
            batches = parity._batches(key, len(world.train.inputs), NUM_STEPS)
            return jax.lax.scan(step, (base.params, optimizer.init(base.params)), batches)[0][0]

        return jax.lax.map(one, keys)

    everywhere, shares = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("devices")))
    specs = (everywhere.spec, everywhere.spec, shares.spec)
    program = jax.jit(jax.shard_map(trainings, mesh=mesh, in_specs=specs, out_specs=shares.spec, check_vma=False))
    world, base = jax.device_put((world, base), everywhere)
    keys = jax.device_put(jax.random.split(jax.random.key(0), NUM_TRAININGS), shares)
    return lambda: jax.block_until_ready(program(world, base, keys))


def eager(world: parity.World, method: str) -> Callable[[], object]:
    """The same in PyTorch, a Python loop."""
    inputs, accept = (torch.from_numpy(np.array(x)) for x in world.train)
    label = torch.from_numpy(np.array(world.train.accept)[:, 1].astype(np.int64))

    def run() -> None:
        for _ in range(NUM_TRAININGS):
            widths = (parity.NUM_PIXELS + 1, *parity.WIDTHS)
            layers = [layer for a, b in pairwise(widths) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())]
            net = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], parity.NUM_LABELS))
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
            for step in range(NUM_STEPS):
                batch = step % (len(inputs) // parity.BATCH_SIZE)
                if batch == 0:
                    order = torch.randperm(len(inputs))
                rows = order[batch * parity.BATCH_SIZE :][: parity.BATCH_SIZE]
                log_policy = torch.log_softmax(net(inputs[rows]), -1)
                if method == "GRPO":
                    answers = torch.multinomial(log_policy.exp(), parity.GROUP_SIZE, replacement=True)
                    reward = accept[rows].gather(1, answers).float()
                    deviation = reward.std(1, correction=0, keepdim=True)
                    advantage = (reward - reward.mean(1, keepdim=True)) / deviation.clamp(min=1e-8)
                    loss = -(advantage * log_policy.gather(1, answers)).mean()
                else:
                    loss = torch.nn.functional.nll_loss(log_policy, label[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return run


def main() -> None:
    """Print the table."""
    world = parity.split_world(images.load_mnist(), images.load_fashion(), num_test=100)
    base = jax.jit(parity.make_base)(world, parity.init_network(jax.random.key(0)))
    steps = NUM_STEPS * NUM_TRAININGS
    title = f"{jax.devices()[0].device_kind}, jax {jax.__version__}, torch {torch.__version__}"
    table = Table("a step of", "floor", "ours", "PyTorch eager", "floor / ours", "eager / ours", title=title)
    for method in ("SFT 1", "GRPO"):
        jitted, looped = ours(world, base, method), eager(world, method)
        jitted()
        floor = floor_seconds()
        mine, theirs, ratio = paired(jitted, looped, NUM_PAIRS)
        milliseconds = [f"{x * 1e3:.2f} ms" for x in (floor, mine / steps, theirs / steps)]
        table.add_row(method, *milliseconds, f"{floor * steps / mine:.2f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    main()
