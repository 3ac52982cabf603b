"""Trainings of ParityMNIST: ours, PyTorch eager's, and the floor that their matrix products set.

`python benchmarks/trainings.py` prints medians over paired runs in one process, on all cores: every method with the
same network, optimizer, batch, sampling and evaluation; ours with a host device for each core, as `sweep` trains. The
first table has steps alone, the second whole trainings with the measures of the base and of four checkpoints. The floor
is the arithmetic of the network's matrix products, forward and backward, at the rate that a large product reaches in
the same process. It counts all pixels; ours leaves out those that are dark in all digits, an eighth of the arithmetic,
but for replay. "Best of PyTorch" has its fused Adam and a process for each core, at best: one thread's time over the
cores.
On a GPU there is one table: trainings per second by how many are one batched program. Needs the extra `bench`.
"""

import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import eager
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table
from timing import Row, paired, seconds

from rlrazor.methods import GRPO, SFT_1
from rlrazor.tasks import images, parity

NUM_STEPS, NUM_CHECKPOINTS, NUM_PAIRS = 228, 4, 7
RATE, BETA = 1e-3, 0.1
NUM_BATCHED = (8, 32, 128, 512)
PRODUCTS = [a * b for a, b in pairwise((parity.NUM_PIXELS + 1, *parity.WIDTHS, parity.NUM_LABELS))]
FORWARD = 2 * sum(PRODUCTS)  # multiplications and additions for an image
STEP = parity.BATCH_SIZE * (3 * FORWARD - 2 * PRODUCTS[0])  # the images need no gradient; replay has two batches


def rate_of_products() -> float:
    """Multiplications and additions a second in a 2048 x 2048 product."""
    size = 2048
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    return 2 * size**3 / statistics.median(seconds(lambda: product(x).block_until_ready()) for _ in range(9))


def steps(world: parity.World, bases: parity.Base, setting: parity.Setting) -> parity.Params:
    """The steps of one training alone."""
    ready = parity.prepare(world, bases, setting, num_steps=NUM_STEPS)
    return ready.advance(ready.start, ready.batches).params


def training(world: parity.World, bases: parity.Base, setting: parity.Setting) -> parity.Measures:
    """The same with its measures."""
    return parity.fine_tune(world, bases, setting, num_steps=NUM_STEPS, num_checkpoints=NUM_CHECKPOINTS).measures


def settings(methods: tuple[str, ...]) -> parity.Setting:
    """Trainings that differ in their random numbers, too."""
    number = len(methods)
    return parity.Setting(
        method=np.array([parity.method_index(method) for method in methods], np.int32),
        rate=np.full(number, RATE, np.float32),
        cosine=np.zeros(number, bool),
        beta=np.full(number, BETA, np.float32),
        base=np.zeros(number, np.int32),
        key=jax.random.split(jax.random.key(0), number),
    )


def ours(train: Callable[..., Any], world: parity.World, bases: parity.Base) -> Callable[[str], Callable[[], object]]:
    """A training for each core at once: by method, for one program runs them all."""
    mesh = Mesh(np.array(jax.local_devices()), ("devices",))
    everywhere, shares = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("devices")))

    def trainings(world: parity.World, bases: parity.Base, share: parity.Setting) -> Any:
        return jax.lax.map(partial(train, world, bases), share)

    specs = (everywhere.spec, everywhere.spec, shares.spec)
    program = jax.jit(jax.shard_map(trainings, mesh=mesh, in_specs=specs, out_specs=shares.spec, check_vma=False))
    world, bases = jax.device_put((world, bases), everywhere)

    def of_method(method: str) -> Callable[[], object]:
        share = jax.device_put(settings((method,) * len(mesh.devices)), shares)
        return lambda: jax.block_until_ready(program(world, bases, share))

    return of_method


def rows(runs: int) -> list[Row]:
    """Whole trainings of two methods with their measures: ours on all cores against PyTorch, eager and at its best."""
    world, base = checked_world()
    program = ours(training, world, jax.tree.map(lambda leaf: leaf[None], base))
    cores, devices, found = torch.get_num_threads(), len(jax.local_devices()), []
    for method in (SFT_1, GRPO):
        for peer, at_once in (("PyTorch eager", 1), ("the best of PyTorch", cores)):
            torch.set_num_threads(cores // at_once)
            theirs = eager.train(world, base, method, RATE, BETA, NUM_STEPS, NUM_CHECKPOINTS, fused=at_once > 1)
            mine = program(method)
            mine()
            theirs()
            slow, fast, ratio = paired(theirs, mine, runs)
            what = f"a training of ParityMNIST, {method}, {NUM_STEPS} steps"
            found.append(Row(what, fast / devices, peer, slow / at_once, ratio * at_once / devices, 1.0))
    torch.set_num_threads(cores)
    return found


def checked_world() -> tuple[parity.World, parity.Base]:
    """The world and its base, on which both sides measure the same."""
    world = parity.split_world(images.load_mnist(), images.load_fashion(), num_test=1000)
    base = jax.jit(parity.make_base)(world, parity.init_network(jax.random.key(0)))
    check_measures(world, base)
    return world, base


def check_measures(world: parity.World, base: parity.Base) -> None:
    """Both sides measure the same: a network with other parameters than the base, by either."""
    params = jax.tree.map(lambda leaf: leaf + 0.02 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), base.params)
    theirs = eager.measure(eager.to_torch(world), eager.to_torch(base), eager.network(params))
    mine = jax.jit(parity.measure)(world, base, params)
    for (path, value), other in zip(jax.tree.leaves_with_path(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(other.item(), value, rtol=1e-3, err_msg=jax.tree_util.keystr(path))


def compare(
    title: str, train: Callable[..., Any], num_checkpoints: int, world: parity.World, base: parity.Base
) -> Table:
    """A row for each method, and two for the most that we could get out of PyTorch."""
    unit = 1 if num_checkpoints else NUM_STEPS  # by the training, or by the step
    images_seen = len(world.test_new.inputs) + len(world.test_old.inputs)
    evaluations = (num_checkpoints + 1) * images_seen * FORWARD if num_checkpoints else 0
    table = Table(title, "floor", "ours", "PyTorch eager", "floor / ours", "floor / eager", "eager / ours")
    program = ours(train, world, jax.tree.map(lambda leaf: leaf[None], base))
    cores, devices = torch.get_num_threads(), len(jax.local_devices())
    for method, best in [(method, False) for method in parity.METHODS] + [(SFT_1, True), (GRPO, True)]:
        at_once = cores if best else 1
        torch.set_num_threads(cores // at_once)
        mine, theirs = (
            program(method),
            eager.train(world, base, method, RATE, BETA, NUM_STEPS, num_checkpoints, fused=best),
        )
        mine()
        theirs()
        batches = 2 if method == parity.REPLAY else 1
        floor = (NUM_STEPS * batches * STEP + evaluations) / rate_of_products()
        first, second, ratio = paired(mine, theirs, NUM_PAIRS)
        first, second, ratio = first / devices, second / at_once, ratio * devices / at_once
        times = [f"{1e3 * time / unit:.{0 if num_checkpoints else 2}f} ms" for time in (floor, first, second)]
        ratios = [f"{x:.2f}" for x in (floor / first, floor / second, ratio)]
        table.add_row(f"{method}, best of PyTorch" if best else method, *times, *ratios)
    torch.set_num_threads(cores)
    return table


def batched(world: parity.World, base: parity.Base) -> Table:
    """Trainings per second by how many, of all methods, are one batched program."""
    table = Table("trainings at once", "trainings per second")
    program = jax.jit(jax.vmap(partial(training, world, jax.tree.map(lambda leaf: leaf[None], base))))
    for number in NUM_BATCHED:
        runs = settings(parity.METHODS * (number // len(parity.METHODS) + 1))
        runs = jax.tree.map(lambda leaf, number=number: leaf[:number], runs)
        jax.block_until_ready(program(runs))
        took = statistics.median(seconds(lambda runs=runs: jax.block_until_ready(program(runs))) for _ in range(3))
        table.add_row(str(number), f"{number / took:.1f}")
    return table


def main() -> None:
    """Print the tables."""
    world, base = checked_world()
    console = Console()
    console.print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, torch {torch.__version__}")
    if jax.default_backend() != "cpu":
        console.print(batched(world, base))
        return
    console.print(compare("a step of", steps, 0, world, base))
    console.print(compare("a training with", training, NUM_CHECKPOINTS, world, base))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", torch.get_num_threads())
    main()
