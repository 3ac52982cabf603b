"""Sweeps: against a loop, on other devices and processes, killed, resumed, and with damaged checkpoints."""

import itertools
import json
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlrazor.sweeps import grid, of_each, per_run, rows_by_name, sweep
from tests.sweep_worker import chaos, reinforce, settings_of

WORKER = Path(__file__).with_name("sweep_worker.py")
RUNS = 13
PATIENCE = 600  # seconds, for what takes a few: only what hangs should fail


def start(devices=1, **arguments):
    """A process that sweeps, with the two threads that XLA takes on two cores, however many there are."""
    count = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    flags = {"XLA_FLAGS": count, "JAX_PLATFORMS": "cpu", "NPROC": "2"}
    command = [sys.executable, str(WORKER), json.dumps(arguments)]
    return subprocess.Popen(command, env=os.environ | flags, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def leaves_of(path):
    with np.load(path) as saved:
        return [saved[f"arr_{i}"] for i in range(len(saved.files) - 2)], int(saved["devices"]), int(saved["processes"])


def assert_same_bits(got, want):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    for one, other in zip(got, want, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.tobytes() == other.tobytes()


def chunks_in(directory):
    return sorted(path.name for path in Path(directory).glob("chunk_*") if "tmp" not in path.name)


@pytest.fixture(scope="module")
def loop():
    """The runs one after the other."""
    single, settings = jax.jit(reinforce), settings_of(RUNS)
    rows = [single(jax.tree.map(lambda leaf, i=i: leaf[i], settings)) for i in range(RUNS)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@pytest.fixture
def traced():
    """A training that counts how often it is traced and how often it is run."""

    class Count:
        traces = runs = 0

        def __call__(self, setting):
            self.traces += 1
            jax.debug.callback(self.ran, ordered=False)
            return reinforce(setting)

        def ran(self):
            self.runs += 1

    return Count()


@pytest.mark.parametrize(("chunk_size", "batch_size"), [(64, 1), (5, 1), (1, 1), (64, 4), (3, 4), (1, 64)])
def test_equals_a_loop_bit_for_bit(loop, chunk_size, batch_size):
    assert_same_bits(sweep(reinforce, settings_of(RUNS), chunk_size=chunk_size, batch_size=batch_size), loop)


def test_results_are_writable_numpy_arrays_in_the_structure_of_train(loop):
    results = sweep(reinforce, settings_of(RUNS))
    assert jax.tree.structure(results) == jax.tree.structure(loop)
    for leaf in jax.tree.leaves(results):
        assert type(leaf) is np.ndarray
        assert leaf.flags.writeable
    assert results["path"].shape == (RUNS, 13, 4)


def test_eight_devices_give_the_bits_of_one(loop, tmp_path):
    workers = [
        start(devices=8, chunk_size=size, batch_size=batch, out=str(tmp_path / f"{size}.npz"))
        for size, batch in ((64, 1), (1, 3))
    ]
    for worker in workers:
        finish(worker)
    for path in tmp_path.glob("*.npz"):
        leaves, devices, _ = leaves_of(path)
        assert devices == 8
        assert_same_bits(leaves, loop)


def test_a_network_trained_on_two_devices_has_the_bits_of_one(tmp_path):
    paths = [tmp_path / f"{count}.npz" for count in (1, 2)]
    workers = [start(count, train="grpo", runs=3, out=str(path)) for count, path in enumerate(paths, 1)]
    for worker in workers:
        finish(worker)
    (alone, one, _), (shared, two, _) = map(leaves_of, paths)
    assert (one, two) == (1, 2)
    assert_same_bits(shared, alone)
    assert len({leaf.tobytes() for leaf in alone[-1]}) == 3


def test_one_trace_and_one_compilation(caplog, traced):
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        sweep(traced, settings_of(RUNS), chunk_size=3)
    compilations = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    assert traced.traces == 1
    assert len([line for line in compilations if "trainings" in line]) == 1
    jax.effects_barrier()
    assert traced.runs == 15  # 13, cut in 5 chunks of 3


def test_the_number_of_runs_need_not_fill_a_batch():
    results = sweep(lambda x: x + 1, np.arange(3), batch_size=50)
    assert results.tolist() == [1, 2, 3]


@pytest.mark.parametrize("runs", range(1, 12))
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 7, 100])
def test_every_run_comes_once_and_in_order(monkeypatch, runs, chunk_size):
    monkeypatch.setattr(jax, "jit", lambda function: function)
    monkeypatch.setattr(jax, "shard_map", lambda function, **_: function)
    assert sweep(lambda x: x, np.arange(runs), chunk_size=chunk_size).tolist() == list(range(runs))


def test_named_tuples_scalars_and_constants():
    class Run(NamedTuple):
        start: float
        steps: int

    class Result(NamedTuple):
        end: float
        empty: tuple
        one: float

    results = sweep(lambda s: Result(s.start + s.steps.astype(float), (), 1.0), Run(np.ones(3), np.arange(3)))
    assert isinstance(results, Result)
    assert results.end.tolist() == [1.0, 2.0, 3.0]
    assert results.one.tolist() == [1.0] * 3


def test_arrays_that_live_on_a_device_and_bare_keys():
    keys = jax.device_put(jax.random.split(jax.random.key(1), 5), jax.devices()[0])
    want = np.stack([jax.random.normal(key, (2,)) for key in keys])
    assert_same_bits(sweep(lambda key: jax.random.normal(key, (2,)), keys, chunk_size=2), want)


def test_gradient_flow_in_a_sweep():
    import rlrazor as rz

    def flow(logits):
        path = rz.gradient_flow(lambda p: -rz.expected_reward(p, jnp.arange(3.0)), logits, jnp.array([1.0]))
        return path.params[-1]

    logits = np.random.default_rng(3).normal(size=(3, 3))
    want = np.stack([jax.jit(flow)(row) for row in logits])
    np.testing.assert_allclose(sweep(flow, logits), want, rtol=1e-12)


def test_the_bar_shows_and_changes_nothing(loop, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert_same_bits(sweep(reinforce, settings_of(RUNS), chunk_size=4, show_progress=True), loop)
    assert "13/13" in capsys.readouterr().out


@pytest.mark.parametrize(("kept", "chunk_size"), [(True, 3), (False, 3), (False, 64)])
def test_both_return_what_one_returns(loop, tmp_path, kept, chunk_size):
    port, directory = free_port(), str(tmp_path / "chunks") if kept else None
    workers = [
        start(2, port=port, process=i, chunk_size=chunk_size, directory=directory, out=str(tmp_path / f"{i}.npz"))
        for i in range(2)
    ]
    for worker in workers:
        finish(worker)
    for i in range(2):
        leaves, devices, processes = leaves_of(tmp_path / f"{i}.npz")
        assert (devices, processes) == (2, 2)
        assert_same_bits(leaves, loop)
    if kept:  # and one process takes up what two have left
        assert len(chunks_in(directory)) == 5
        assert_same_bits(sweep(_never_run, settings_of(RUNS), directory=directory, chunk_size=3), loop)


def test_processes_with_different_settings_are_told_so():
    port = free_port()
    workers = [start(train="chaos", port=port, process=i, shift=0.1 * i) for i in range(2)]
    for worker in workers:
        _, err = worker.communicate(timeout=PATIENCE)
        assert "ValueError: settings must be the same in every process" in err


def _never_run(setting):
    """The shapes of `reinforce`; a run is an error."""

    def fail():
        raise AssertionError("a finished chunk was run again")

    jax.debug.callback(fail)
    return reinforce(setting)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, loop):
    """The folder of a finished sweep, in chunks of 5, 5 and 3."""
    folder = tmp_path_factory.mktemp("sweep")
    assert_same_bits(resume(folder), loop)
    return folder


@pytest.fixture
def directory(finished, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(finished, tmp_path / "chunks")


def resume(directory, train=reinforce, settings=None, chunk_size=5):
    settings = settings_of(RUNS) if settings is None else settings
    return sweep(train, settings, directory=directory, chunk_size=chunk_size)


def test_a_finished_sweep_is_not_run_again(directory, loop, traced):
    assert chunks_in(directory) == ["chunk_00000", "chunk_00001", "chunk_00002"]
    assert_same_bits(resume(directory, traced), loop)
    jax.effects_barrier()
    assert traced.runs == 0


def test_only_the_missing_chunk_is_run(directory, loop, traced):
    shutil.rmtree(directory / "chunk_00001")
    assert_same_bits(resume(directory, traced), loop)
    jax.effects_barrier()
    assert traced.runs == 5


def test_what_a_killed_sweep_left_half_written_is_cleaned_away(directory, loop):
    (directory / "chunk_00001").rename(directory / "chunk_00001.orbax-checkpoint-tmp")
    shutil.copytree(directory / "chunk_00000", directory / "chunk_00001.orbax-checkpoint-tmp-123")
    assert_same_bits(resume(directory), loop)
    assert sorted(path.name for path in directory.iterdir()) == [f"chunk_0000{c}" for c in range(3)]


def test_every_flipped_byte_is_noticed_or_harmless(directory, loop):
    chunk = directory / "chunk_00001"
    random.seed(0)
    for path in (path for path in sorted(chunk.rglob("*")) if path.is_file()):
        content = path.read_bytes()
        for place in random.sample(range(len(content)), min(25, len(content))):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]
            )
            noticed = notices(directory, loop)
            assert noticed or path.name != "metadata"
        path.write_bytes(content)
    assert_same_bits(resume(directory), loop)


def notices(directory, loop):
    """Whether the damage to chunk 1 is reported by its path; if not, the results must be right."""
    try:
        results = resume(directory)
    except ValueError as error:
        return f"{directory / 'chunk_00001'} is damaged: delete it, or choose another directory" in str(error) or (
            f"{directory / 'chunk_00001'} belongs to other settings" in str(error)
        )
    assert_same_bits(results, loop)
    return False


@pytest.mark.parametrize("damage", ["delete", "truncate", "empty"])
def test_every_lost_or_shortened_file_is_noticed_or_harmless(directory, loop, damage):
    for path in [path for path in sorted((directory / "chunk_00001").rglob("*")) if path.is_file()]:
        content = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
        assert notices(directory, loop) or path.name != "metadata"
        path.write_bytes(content)


def test_a_file_or_an_empty_folder_in_the_place_of_a_chunk(directory, loop):
    shutil.rmtree(directory / "chunk_00001")
    (directory / "chunk_00001").mkdir()
    assert notices(directory, loop)
    (directory / "chunk_00001").rmdir()
    (directory / "chunk_00001").write_text("")
    assert notices(directory, loop)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | {"rate": np.nextafter(s["rate"], 2.0)},
        lambda s: s | {"rate": s["rate"].astype(np.float32)},
        lambda s: s | {"key": jax.random.split(jax.random.key(8), RUNS)},
        lambda s: s | {"key": jax.random.split(jax.random.key(7, impl="rbg"), RUNS)},
        lambda s: s | {"other": s["rate"]},
        lambda s: jax.tree.map(lambda leaf: leaf[::-1], s),
        lambda s: jax.tree.map(lambda leaf: leaf[1:], s),
    ],
    ids=["value", "dtype", "keys", "generator", "structure", "order", "runs"],
)
def test_other_settings_are_refused(directory, change):
    def train(setting):
        return reinforce(setting | {"rate": setting["rate"].astype(float)})

    resume(directory, train)
    with pytest.raises(ValueError, match=r"chunk_0000\d belongs to other settings.*: delete it, or choose another"):
        resume(directory, train, change(settings_of(RUNS)))


def test_other_chunks_and_other_results_are_refused(directory):
    with pytest.raises(ValueError, match="chunk_00000 belongs to other settings, or another chunk_size"):
        resume(directory, chunk_size=4)
    with pytest.raises(ValueError, match="chunk_00000 belongs to other settings"):
        resume(directory, lambda setting: reinforce(setting)["path"])


def test_a_chunk_in_the_place_of_another_is_refused(directory):
    shutil.rmtree(directory / "chunk_00001")
    shutil.copytree(directory / "chunk_00000", directory / "chunk_00001")
    with pytest.raises(ValueError, match="chunk_00001 belongs to other settings"):
        resume(directory)


def test_every_dtype_comes_back(tmp_path):
    names = ["bool", "int8", "uint32", "int64", "float16", "bfloat16", "float32", "complex128", "float8_e4m3fn"]
    values = np.random.default_rng(0).integers(0, 2**32, 6)

    def train(bits):
        return {name: (bits % 100).astype(name) for name in names} | {"empty": jnp.zeros((0, 3)), "nan": jnp.nan}

    want = sweep(train, values)
    for _ in range(2):
        assert_same_bits(sweep(train, values, directory=tmp_path, chunk_size=4), want)


def test_a_relative_directory_and_its_parents(tmp_path, monkeypatch, loop):
    monkeypatch.chdir(tmp_path)
    assert_same_bits(sweep(reinforce, settings_of(RUNS), directory="a/b", chunk_size=5), loop)
    assert len(chunks_in(tmp_path / "a" / "b")) == 3


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"directory must be a folder that can be written to, got {directory}"):
            sweep(_never_run, settings_of(RUNS), directory=directory)


def test_a_read_only_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(OSError, match=f"directory must be a folder that can be written to, got {tmp_path}"):
        sweep(_never_run, settings_of(RUNS), directory=tmp_path)


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'rlrazor\[experiments\]'"):
        sweep(_never_run, settings_of(RUNS), directory=tmp_path)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ImportError, match=r"pip install 'rlrazor\[experiments\]'"):
        sweep(_never_run, settings_of(RUNS), show_progress=True)


def test_twenty_kills_lose_no_finished_chunk_and_no_bit(tmp_path):
    runs, directory, chance = 800, tmp_path / "chunks", random.Random(1)
    kept, in_the_middle = [0], 0
    arguments = {"train": "slow_chaos", "runs": runs, "directory": str(directory), "chunk_size": 2, "wait": True}
    following = start(**arguments)
    for _ in range(20):
        worker, following = following, start(**arguments)  # the next one imports while this one works
        worker.stdin.write("go\n")
        worker.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while len(chunks_in(directory)) == kept[-1] and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.3))
        in_the_middle += worker.poll() is None
        worker.kill()
        worker.communicate()
        kept.append(len(chunks_in(directory)))
    following.kill()
    following.communicate()
    assert in_the_middle == 20
    assert all(earlier < later for earlier, later in itertools.pairwise(kept))
    assert kept[-1] < runs // 2
    resumed = sweep(chaos, settings_of(runs, "chaos"), directory=directory, chunk_size=2)
    assert_same_bits(resumed, sweep(chaos, settings_of(runs, "chaos")))
    assert len(list(directory.iterdir())) == runs // 2  # nothing half-written is left


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"settings must have leaves \[runs, ...\] that share their leading axis, got shapes \[\]"),
        ({"a": 1.0}, r"settings must have leaves .* got shapes \[\(\)\]"),
        ((np.ones(3), np.ones((4, 2))), r"got shapes \[\(3,\), \(4, 2\)\]"),
        ((np.ones(3), 2.0), r"got shapes \[\(3,\), \(\)\]"),
        (np.ones((0, 2)), r"settings must hold at least 1 run, got shapes \[\(0, 2\)\]"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        sweep(_never_run, settings)


@pytest.mark.parametrize("name", ["chunk_size", "batch_size"])
@pytest.mark.parametrize("size", [0, -3])
def test_sizes(name, size):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {size}"):
        sweep(_never_run, settings_of(RUNS), **{name: size})


def test_keys_as_results():
    with pytest.raises(TypeError, match="train must return numbers, got PRNG keys"):
        sweep(jax.random.split, jax.random.split(jax.random.key(0), 3))


# Grids


def test_a_grid_is_nested_loops_over_its_axes():
    axes = {"rate": np.array([0.5, 0.25]), "name": np.arange(3), "last": np.array([True, False])}
    crossed = grid(**axes)
    loops = list(itertools.product(*(axis.tolist() for axis in axes.values())))
    assert crossed.shape == (2, 3, 2)
    assert list(zip(*(crossed.settings[name].tolist() for name in axes), strict=True)) == loops


def test_results_go_back_to_their_places_on_the_grid():
    axes = {"rate": np.array([0.5, 0.25]), "reward": np.arange(6.0).reshape(3, 2)}
    crossed = grid(**axes)
    results = crossed.unflatten(sweep(lambda s: {"x": s["rate"] * s["reward"], "y": s["rate"]}, crossed.settings))
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(results["x"][i, j], axes["rate"][i] * axes["reward"][j])
        assert results["y"][i, j] == axes["rate"][i]


def test_a_grid_of_keys_under_jit():
    keys, rates = jax.random.split(jax.random.key(3), 4), jnp.array([1.0, 2.0])

    @jax.jit
    def draws(keys, rates):
        crossed = grid(key=keys, rate=rates)
        return crossed.unflatten(jax.lax.map(lambda s: s["rate"] * jax.random.uniform(s["key"]), crossed.settings))

    want = np.array([[rate * jax.random.uniform(key) for rate in rates] for key in keys])
    np.testing.assert_allclose(draws(keys, rates), want, rtol=1e-15)


def test_a_grid_without_points_on_an_axis_has_no_runs():
    crossed = grid(rate=np.arange(3.0), seed=np.arange(0))
    assert crossed.shape == (3, 0)
    assert crossed.settings["rate"].shape == (0,)


def test_a_number_is_no_axis():
    with pytest.raises(ValueError, match=r"seed must be an axis \[points, ...\], got a single number"):
        grid(rate=np.arange(3.0), seed=np.array(1))


@pytest.mark.parametrize(("values", "rank"), [([1.0, 2.0], 0), ([[[0.0]]], 1), ([[0.0], [1.0]], 0)])
def test_values_for_another_number_of_runs_are_an_error(as_installed, values, rank):
    with pytest.raises(ValueError, match=f"values must be one of rank {rank}, or 3 of them, got shape"):
        per_run(3, values, rank)


def test_of_each_is_what_a_loop_computes():
    functions = {"sine": jnp.sin, "cube": lambda x: x**3}
    x = jnp.linspace(0.1, 1.0, 5)
    found = of_each(functions, lambda f: (f(x), jax.jacfwd(f)(x)))
    for name, f in functions.items():
        np.testing.assert_allclose(found[name][0], f(x), rtol=1e-15)
        np.testing.assert_allclose(found[name][1], jax.jacfwd(f)(x), rtol=1e-15)


def test_rows_by_name_are_rows():
    rows = rows_by_name(("a", "b"), {"x": np.arange(4).reshape(2, 2)})
    assert rows["b"]["x"].tolist() == [2, 3]
    assert rows["a"]["x"].tolist() == [0, 1]
