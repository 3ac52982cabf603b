"""Results as files: arrays with a key a leaf, which agree with others but for rounding."""

import hashlib
import io
import typing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.harness.config import UserError


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
        inexact = np.issubdtype(new.dtype, np.inexact)
        return np.allclose(new, old, rtol=1e-6, atol=1e-9, equal_nan=True) if inexact else np.array_equal(new, old)

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


def load(kind: Any, path: Path, record: dict[str, Any]) -> Any:
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
