"""Many trainings at once: one program for all of them, cut in chunks for the devices, the processes and the disk."""

import base64
import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Integer, Shaped

from rlrazor._trees import of_each as of_each
from rlrazor._trees import rows_by_name as rows_by_name

Leaves: TypeAlias = list[Any]
PerRun: TypeAlias = ArrayLike | Sequence[Any]


def sweep(
    train: Callable[[Any], Any],
    settings: Any,
    *,
    directory: str | os.PathLike[str] | None = None,
    chunk_size: int = 64,
    batch_size: int = 1,
    show_progress: bool = False,
) -> Any:
    """The results r_i = train(s_i) for every setting s_i, i = 1 ... runs.

    The runs are cut in equal chunks. A chunk is shared out over the local devices, and each maps `train` over its
    share. There is one compilation, for every number in a setting is traced. After `jax.distributed.initialize` the
    chunks are dealt out: chunk c belongs to process c mod processes. Every process must be given the same settings, and
    gets all the results. The numbers depend neither on the devices nor on the processes, unless XLA rounds `train` in
    another way on several devices than on one, as it does where one quotient is divided again, (a / b) / c, and on a
    single core in large matrix products, which it then shares between threads.

    A CPU is one device unless told otherwise: `jax.config.update("jax_num_cpu_devices", cores)`, before the first
    computation, trains on every core at once.

    With a directory, a finished chunk is never run again. It is written whole or not at all: a killed sweep loses no
    more than the chunks in flight, and resumed it returns the bits of an unbroken one. A directory belongs to one
    `train`: a chunk knows its settings and the shapes of its results, but not the function between them.

    Args:
        train: setting -> results, a pytree of arrays; pure.
        settings: a pytree of arrays, each leaf `[runs, ...]`; PRNG keys are welcome.
        directory: where the chunks are kept, seen by every process; None keeps nothing.
        chunk_size: the most runs in a chunk, though no fewer than `batch_size` a device.
        batch_size: runs that one device batches. One by one, the parameters of small trainings stay in the cache of a
            CPU; a GPU wants hundreds at a time.
        show_progress: whether to draw a bar with trainings per second and the time left.

    Returns:
        The results, a pytree of NumPy arrays, each leaf `[runs, ...]`.

    Raises:
        ImportError: a directory or a bar is asked for without the extra `experiments`.
        OSError: the directory cannot be made or written to.
        TypeError: `train` returns PRNG keys.
        ValueError: settings without leaves, without runs or with different numbers of runs, or not the same in every
            process; a size below 1; a chunk in the directory that is damaged or belongs to other settings.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from rlrazor.training import train
        >>> def last(setting):
        ...     optimizer = optax.sgd(setting["rate"])
        ...     return train(lambda x, key: x, jnp.array(1.0), optimizer, setting["key"], num_steps=2)[-1]
        >>> sweep(last, {"rate": jnp.array([0.0, 0.5, 1.0]), "key": jax.random.split(jax.random.key(0), 3)}).tolist()
        [1.0, 0.25, 0.0]
    """
    settings = jax.tree.map(lambda leaf: leaf if _is_key(leaf) else np.asarray(leaf), settings)
    for name, number in (("chunk_size", chunk_size), ("batch_size", batch_size)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    chunks = _chunks(_num_runs(settings), max(chunk_size, jax.local_device_count() * batch_size))
    _check_agreement(settings)
    program = _program(train, settings, chunks, batch_size)
    disk = None if directory is None else _Disk(Path(directory).absolute(), settings, program.shapes)

    done: dict[int, Leaves] = {}
    here, processes = jax.process_index(), jax.process_count()
    mine = range(here, len(chunks), processes)
    with _progress(sum(len(chunks[c]) for c in mine), show_progress and here == 0) as advance:
        for c in mine:
            known = disk is not None and disk.path(c).exists()
            done[c] = disk.load(c, chunks[c]) if disk and known else program.run(chunks[c])
            if disk and not known:
                disk.save(c, chunks[c], done[c])
            advance(len(chunks[c]), known)
    if processes > 1 and disk:
        multihost_utils.sync_global_devices("rlrazor.sweeps: all chunks are on the disk")
        done |= {c: disk.load(c, chunk) for c, chunk in enumerate(chunks) if c not in done}
    elif processes > 1:
        done = _gathered(done, chunks, program.shapes)
    columns = zip(*(done[c] for c in range(len(chunks))), strict=True)
    return jax.tree.unflatten(program.structure, [np.concatenate(column) for column in columns])


class Grid(NamedTuple):
    """Settings at every point of a grid.

    Attributes:
        settings: a value an axis, by name, each `[runs, ...]`; the last axis varies fastest.
        shape: of the grid, static.
    """

    settings: dict[str, Shaped[Array, "runs ..."]]
    shape: tuple[int, ...]

    def unflatten(self, results: Any) -> Any:
        """Results of the runs, back on the grid.

        Args:
            results: a pytree of arrays, each leaf `[runs, ...]`.

        Returns:
            The same pytree, each leaf `[*shape, ...]`.

        Example:
            >>> crossed = grid(rate=jnp.array([0.1, 0.2]), seed=jnp.arange(3))
            >>> crossed.unflatten(crossed.settings["seed"]).tolist()
            [[0, 1, 2], [0, 1, 2]]
        """
        return jax.tree.map(lambda leaf: leaf.reshape(*self.shape, *leaf.shape[1:]), results)


def grid(**axes: Shaped[Array, "..."] | Shaped[np.ndarray, "..."]) -> Grid:
    """Every combination of the values on the axes, as settings for `sweep`, `jax.lax.map` or `jax.vmap`.

    Args:
        **axes: the values of each axis, `[points, ...]`, by name; PRNG keys are welcome.

    Returns:
        The `Grid`, in the order of nested loops over the axes, the first one outermost.

    Raises:
        ValueError: an axis is a single number.

    Example:
        >>> crossed = grid(rate=jnp.array([0.5, 1.0]), step=jnp.array([1.0, 2.0, 4.0]))
        >>> crossed.settings["rate"].tolist()
        [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]
        >>> crossed.unflatten(jax.lax.map(lambda setting: setting["rate"] * setting["step"], crossed.settings)).tolist()
        [[0.5, 1.0, 2.0], [1.0, 2.0, 4.0]]
    """
    values = {name: jnp.asarray(axis) for name, axis in axes.items()}
    for name, axis in values.items():
        if axis.ndim == 0:
            raise ValueError(f"{name} must be an axis [points, ...], got a single number")
    shape = tuple(len(axis) for axis in values.values())
    places = np.indices(shape).reshape(len(shape), math.prod(shape))
    return Grid({name: _at(axis, place) for (name, axis), place in zip(values.items(), places, strict=True)}, shape)


def per_run(runs: int, values: PerRun, rank: int = 0) -> Shaped[Array, "runs ..."]:
    """One value for all runs, or one for each, as the settings of a sweep.

    Args:
        runs: how many there are.
        values: of the given rank, or with a leading axis `[runs, ...]`.
        rank: of a value.

    Returns:
        The values, `[runs, ...]`.

    Raises:
        ValueError: there are other than `runs` values.

    Example:
        >>> per_run(3, 0.5).tolist(), per_run(2, [0, 10], rank=1).tolist()
        ([0.5, 0.5, 0.5], [[0, 10], [0, 10]])
    """
    array = np.asarray(values)
    if array.ndim not in (rank, rank + 1) or (array.ndim > rank and len(array) != runs):
        raise ValueError(f"values must be one of rank {rank}, or {runs} of them, got shape {array.shape}")
    return jnp.asarray(np.broadcast_to(array, (runs, *array.shape[array.ndim - rank :])))


@jax.jit
def _at(axis: Shaped[Array, "points ..."], places: Integer[Array, " runs"]) -> Shaped[Array, "runs ..."]:
    """The values at the places, by one program for all the operations of an index."""
    return axis[places]


def _chunks(runs: int, most: int) -> list[range]:
    """The runs in the fewest chunks that hold no more than the most, all of one size but the last."""
    size = math.ceil(runs / math.ceil(runs / most))
    return [range(start, min(start + size, runs)) for start in range(0, runs, size)]


def _check_agreement(settings: Any) -> None:
    """Raise unless every process was given the same settings."""
    if jax.process_count() == 1:
        return
    # All are here at once and connect, which they could not do half a minute apart.
    given = multihost_utils.process_allgather(np.frombuffer(_fingerprint(settings), np.uint8))
    if np.any(given != given[0]):
        raise ValueError("settings must be the same in every process, got different ones")


class _Program(NamedTuple):
    """The compiled program that all chunks share: how one is run, and what comes out of it."""

    run: Callable[[range], Leaves]
    shapes: Leaves
    structure: Any


def _program(train: Callable[[Any], Any], settings: Any, chunks: list[range], batch_size: int) -> _Program:
    """Every device maps `train` over its share of a chunk."""
    devices = jax.local_devices()
    at_once = len(devices) * batch_size
    padded = np.arange(math.ceil(len(chunks[0]) / at_once) * at_once)
    shares = NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec("devices"))

    def trainings(share: Any) -> Any:
        return jax.lax.map(train, share, batch_size=None if batch_size == 1 else batch_size)

    specs: dict[str, Any] = {"mesh": shares.mesh, "in_specs": shares.spec, "out_specs": shares.spec}
    # The check of varying axes would reject a scan in `train` that starts at a constant.
    chunk_of_trainings = jax.jit(jax.shard_map(trainings, **specs, check_vma=False))

    def inputs(chunk: range) -> Any:  # of one shape for every chunk: the last setting is repeated
        rows = np.minimum(chunk.start + padded, chunk.stop - 1)
        return jax.device_put(jax.tree.map(lambda leaf: leaf[rows], settings), shares)

    def run(chunk: range) -> Leaves:
        return [leaf[: len(chunk)] for leaf in jax.tree.leaves(jax.device_get(chunk_of_trainings(inputs(chunk))))]

    shapes, structure = jax.tree.flatten(jax.eval_shape(chunk_of_trainings, inputs(chunks[0])))
    if any(map(_is_key, shapes)):
        raise TypeError("train must return numbers, got PRNG keys: return their jax.random.key_data")
    return _Program(run, shapes, structure)


class _Disk:
    """The finished chunks in a directory, one orbax checkpoint each."""

    def __init__(self, directory: Path, settings: Any, shapes: Leaves):
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            raise ImportError("a sweep with a directory needs orbax: pip install 'rlrazor[experiments]'") from error
        here = jax.process_index()
        # Each process saves its own chunks and waits for nobody, which orbax can do with JSON but not with arrays.
        alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
        handler = ocp.JsonCheckpointHandler(multiprocessing_options=alone)
        self.checkpointer = ocp.Checkpointer(handler, multiprocessing_options=alone)
        self.directory, self.settings, self.shapes = directory, settings, shapes
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK):
                raise PermissionError("it is read-only")
        except OSError as error:
            raise OSError(f"directory must be a folder that can be written to, got {directory}: {error}") from error

    def path(self, c: int) -> Path:
        return self.directory / f"chunk_{c:05d}"

    def label(self, c: int, chunk: range) -> dict[str, Any]:
        """What a chunk is recognised by: its place, its settings, and the shapes of its results."""
        rows = jax.tree.map(lambda leaf: leaf[chunk.start : chunk.stop], self.settings)
        shapes = [[str(leaf.dtype), *leaf.shape[1:]] for leaf in self.shapes]
        return {"chunk": c, "runs": len(chunk), "results": shapes, "settings": _fingerprint(rows).hex()}

    def save(self, c: int, chunk: range, leaves: Leaves) -> None:
        """Write the chunk, whole or not at all."""
        for rest in self.directory.glob(f"{self.path(c).name}.orbax-checkpoint-tmp*"):  # of a killed sweep
            shutil.rmtree(rest)
        data = [leaf.tobytes() for leaf in leaves]
        record = {"sha256": _sha256(data), "data": [base64.b64encode(piece).decode() for piece in data]}
        self.checkpointer.save(self.path(c), self.label(c, chunk) | record)

    def load(self, c: int, chunk: range) -> Leaves:
        """The results of the chunk, if they are what was saved, and belong to these settings."""
        path, remedy = self.path(c), "delete it, or choose another directory"
        try:
            record = self.checkpointer.restore(path)
            data = [base64.b64decode(piece, validate=True) for piece in record.pop("data")]
            if record.pop("sha256") != _sha256(data):
                raise ValueError("the results are not those of their sha256")
        except Exception as error:
            raise ValueError(f"the chunk {path} is damaged: {remedy}") from error
        if record != self.label(c, chunk):
            raise ValueError(f"the chunk {path} belongs to other settings, or another chunk_size: {remedy}")
        return [
            np.frombuffer(piece, leaf.dtype).reshape(len(chunk), *leaf.shape[1:])
            for piece, leaf in zip(data, self.shapes, strict=True)
        ]


def _gathered(done: dict[int, Leaves], chunks: list[range], shapes: Leaves) -> dict[int, Leaves]:
    """The chunks of all processes: chunk c is the one of process c mod processes in round c // processes."""
    processes, size = jax.process_count(), len(chunks[0])
    rounds = math.ceil(len(chunks) / processes)
    stacks = [np.zeros((rounds, size, *leaf.shape[1:]), leaf.dtype) for leaf in shapes]
    for c, leaves in done.items():
        for stack, leaf in zip(stacks, leaves, strict=True):
            stack[c // processes, : len(leaf)] = leaf
    stacks = multihost_utils.process_allgather(stacks)
    return {
        c: [stack[c % processes, c // processes, : len(chunk)] for stack in stacks] for c, chunk in enumerate(chunks)
    }


@contextmanager
def _progress(runs: int, visible: bool) -> Iterator[Callable[[int, bool], None]]:
    """A bar over the runs; what it yields moves it by a number of runs, loaded ones or trained ones."""
    if not visible:
        yield lambda count, loaded: None
        return
    try:
        from rich import progress
    except ImportError as error:
        raise ImportError("show_progress=True needs rich: pip install 'rlrazor[experiments]'") from error
    columns = ("{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(), "{task.fields[rate]}")
    with progress.Progress(*columns, progress.TimeRemainingColumn(), speed_estimate_period=3600, transient=True) as bar:
        task, start, trained = bar.add_task("trainings", total=runs, rate=""), time.monotonic(), 0

        def advance(count: int, loaded: bool) -> None:
            nonlocal trained
            trained += 0 if loaded else count
            bar.update(task, advance=count, rate=f"{trained / (time.monotonic() - start):.3g}/s")

        yield advance


def _fingerprint(settings: Any) -> bytes:
    """A hash of the names, the types and the values of all settings."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(settings):
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape} ".encode())
        sha.update(np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf).tobytes())
    return sha.digest()


def _sha256(data: list[bytes]) -> str:
    return hashlib.sha256(b"".join(data)).hexdigest()


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _num_runs(settings: Any) -> int:
    """The length of the leading axis that all leaves share."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(settings)]
    leading = {shape[:1] for shape in shapes}
    if len(leading) != 1 or () in leading:
        raise ValueError(f"settings must have leaves [runs, ...] that share their leading axis, got shapes {shapes}")
    ((runs,),) = leading
    if runs == 0:
        raise ValueError(f"settings must hold at least 1 run, got shapes {shapes}")
    return int(runs)
