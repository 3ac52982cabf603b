"""Trainings for the tests of sweeps, and a process that sweeps them: `sweep_worker.py JSON`, see `main`."""

import importlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from rlrazor.sweeps import sweep

REWARD = np.array([0.0, 1.0, -0.5, 2.0])  # not of JAX: a process joins the others before it touches a device


def settings_of(runs, train="reinforce"):
    """As many settings, for reinforce of numbers and of keys."""
    if train != "reinforce":
        return {"rate": np.linspace(0.05, 1.5, runs)}
    return {
        "rate": np.linspace(0.05, 1.5, runs),
        "key": jax.random.split(jax.random.key(7), runs),
        "logits": np.random.default_rng(0).normal(size=(runs, 4)),
    }


def reinforce(setting):
    """A sampled policy gradient: its path, and how far it went."""
    import optax  # here, since the processes that do without it start faster

    import rlrazor as rz
    from rlrazor.training import train

    def gradient(logits, key):
        outcome = jax.random.categorical(key, rz.softmax_policy(logits))
        return -jnp.asarray(REWARD)[outcome] * jax.grad(lambda x: rz.softmax_policy(x)[outcome])(logits)

    path = train(gradient, setting["logits"], optax.sgd(setting["rate"]), setting["key"], num_steps=12)
    log_policy = rz.softmax_policy(path)
    return {"path": path, "drift": (rz.kl_divergence(log_policy[0], log_policy[-1]), jnp.argmax(path[-1]) > 1)}


def grpo(setting):
    """Fine-tunings of the ParityMNIST network, on noise with a dark margin."""
    from rlrazor.methods import GRPO
    from rlrazor.tasks import parity
    from rlrazor.tasks.images import Images

    generator = np.random.default_rng(0)
    pixels, labels = generator.integers(0, 256, (128, 784), np.uint8), np.arange(128, dtype=np.int32) % 10
    pixels[:, :100] = 0
    digits = garments = (Images(pixels, labels), Images(pixels[:20], labels[:20]))
    world = parity.split_world(digits, garments, num_pretrain=64)
    base = jax.tree.map(lambda x: x[None], parity.make_base(world, parity.init_network(jax.random.key(0))))
    run = parity.Setting(
        method=jnp.array(parity.method_index(GRPO)),
        rate=setting["rate"].astype(jnp.float32) / 1000,
        cosine=jnp.array(False),
        beta=jnp.float32(0.1),
        base=jnp.array(0),
        key=jax.random.key(1),
    )
    return parity.fine_tune(world, base, run, num_steps=8, num_checkpoints=2)


def chaos(setting):
    """Little to compile, and no bit that would not matter."""
    return jax.lax.fori_loop(0, 500, lambda _, x: 3.9 * x * (1 - x), 0.1 + setting["rate"] / 2)


def slow_chaos(setting):
    """The same, but it takes its time."""

    def wait(x):
        time.sleep(0.02)
        return x

    rate = setting["rate"]
    return chaos({"rate": jax.pure_callback(wait, jax.ShapeDtypeStruct((), rate.dtype), rate)})


def main(train="reinforce", runs=13, process=None, port=None, out=None, wait=False, shift=0.0, **options):
    """Sweeps and writes the leaves to `out`: with a port as one of two processes, with `wait` after a line of input."""
    jax.config.update("jax_enable_x64", True)
    if port is not None:
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    settings = settings_of(runs, train)
    settings["rate"] += shift
    if wait:
        importlib.import_module("orbax.checkpoint")  # takes a second, and kills should hit the sweep, not this
        sys.stdin.readline()
    results = sweep(globals()[train], settings, **options)
    if out:
        np.savez(out, *jax.tree.leaves(results), devices=jax.local_device_count(), processes=jax.process_count())


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
