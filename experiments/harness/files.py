"""Files, written whole or not at all: records, how runs went, and what a damaged one says."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

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


def to_json(record: dict[str, Any]) -> bytes:
    """A record as text that people can read."""
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
