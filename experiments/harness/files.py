"""Files, written whole or not at all: arrays with a key a leaf, records, and what a damaged one says."""

import hashlib
import io
import json
import os
import tempfile
import typing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.harness.config import UserError

RECORD_KEYS = {"name": str, "config": dict, "departures": dict, "caption": str, "claims": list, "results_sha256": str}


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file by the content, or leave it as it was."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_set(contents: dict[Path, bytes]) -> None:
    """Write every file of a run, in order, once there is room for all of them."""
    folder = next(iter(contents)).parent
    size = sum(map(len, contents.values()))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # a full disk says so before anything is replaced
            file.write(b"\0" * size)
            file.flush()
        for path, content in contents.items():
            write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{folder} cannot take {size} bytes: {error.strerror or error}") from None


def open_folder(folder: Path) -> Path:
    """The output folder, made if missing, if files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    return folder


def pack(results: tuple[Any, ...]) -> bytes:
    """Results as npz bytes, an array for each leaf under its path, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **named(results))
    return buffer.getvalue()


def named(results: Any) -> dict[str, np.ndarray]:
    """Every leaf under its path."""
    leaves = jax.tree_util.tree_leaves_with_path(results)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def agree(results: Any, saved: Any) -> bool:
    """Whether results are the saved ones but for rounding, which depends on the processor."""

    def equal(new: np.ndarray, old: np.ndarray) -> bool:
        if new.shape != old.shape or new.dtype != old.dtype:
            return False
        floating = np.issubdtype(new.dtype, np.floating)
        return np.allclose(new, old, rtol=1e-6, atol=1e-9, equal_nan=True) if floating else np.array_equal(new, old)

    news, olds = named(results), named(saved)
    return news.keys() == olds.keys() and all(equal(new, olds[name]) for name, new in news.items())


def unpack(kind: Any, content: bytes, path: Path) -> Any:
    """Results of the given kind, from their bytes."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        left = dict(arrays)
    try:
        results = _rebuild(kind, "", left)
    except KeyError as error:
        raise UserError(f"{path} was saved by another version (lacks {error}): run the figure again") from None
    if left:
        raise UserError(f"{path} was saved by another version (holds {sorted(left)[0]}): run the figure again")
    return results


def _rebuild(kind: Any, prefix: str, left: dict[str, np.ndarray]) -> Any:
    """The part of the results under a prefix, which takes its arrays out of what is left."""
    if isinstance(kind, type) and hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        inside = f"{prefix}/" if prefix else ""
        return kind(*(_rebuild(hints[field], inside + field, left) for field in kind._fields))
    if typing.get_origin(kind) is dict:
        start = f"{prefix}/"
        keys = dict.fromkeys(name[len(start) :].split("/")[0] for name in left if name.startswith(start))
        if not keys:
            raise KeyError(prefix)
        return {key: _rebuild(typing.get_args(kind)[1], start + key, left) for key in keys}
    return left.pop(prefix)


def load_record(path: Path) -> dict[str, Any]:
    """The JSON record of a finished run."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the figure first") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON: run the figure again") from None
    for key, kind in RECORD_KEYS.items():
        if not isinstance(record, dict) or not isinstance(record.get(key), kind):
            raise UserError(f"{path} is not the record of a figure (no {key}): run the figure again")
    return dict(record)


def load_run(stem: Path) -> dict[str, Any]:
    """How the run went, {} where that was not kept: it is not committed."""
    path = stem.with_suffix(".run.json")
    try:
        went = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON: delete it, or run the figure again") from None
    if not isinstance(went, dict):
        raise UserError(f"{path} does not say how a run went: delete it, or run the figure again")
    return went


def load_arrays(kind: Any, path: Path, record: dict[str, Any]) -> Any:
    """Saved results, if they are whole and belong to their record."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the figure first") from None
    if sha256(content) != record["results_sha256"]:
        raise UserError(f"{path} is damaged or does not belong to {record['name']}: run the figure again")
    return unpack(kind, content, path)


def sha256(content: bytes) -> str:
    """What a record recognises its arrays by."""
    return hashlib.sha256(content).hexdigest()


def to_json(record: dict[str, Any]) -> bytes:
    """A record as text that people can read."""
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
