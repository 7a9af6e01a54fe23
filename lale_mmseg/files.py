"""Atomic writes and hashing: a file is either complete under its name or absent."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np

#: Suffix of temporary files; a killed process may leave one behind.
TEMPORARY = '.tmp'


def results_dir(work_dir: str | PathLike[str], phase: str) -> Path:
    """Folder of a work dir for the scores and pictures of a phase, 'val' or 'test'."""
    return Path(work_dir) / phase


@contextmanager
def atomic_path(path: str | PathLike[str], sync: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder (created if missing); renames it to `path` if the block succeeds.

    With `sync` the content is on disk before the rename, and the rename before the block ends: a power failure leaves
    the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The random part keeps processes apart that run on two machines under the same process id.
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(8)}{TEMPORARY}')
    try:
        yield temporary
        if sync:
            _sync(temporary)
        os.replace(temporary, path)
        if sync:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | PathLike[str], content: bytes | str) -> None:
    """Writes a file through `atomic_path`; text is encoded as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode('utf-8') if isinstance(content, str) else content)


def write_json(path: str | PathLike[str], value: Any) -> None:
    """Writes indented JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2) + '\n')


def hash_json(value: Any) -> str:
    """SHA-256 of a value, independent of the order of its keys; what JSON lacks counts by its `repr`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def file_sha256(path: str | PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def encode_png(array: np.ndarray) -> bytes:
    """Encodes an (H, W) or RGB (H, W, 3) uint8 array as PNG.

    Raises:
        ValueError: The array has another type or shape.
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f'expected a (H, W) or (H, W, 3) uint8 array, found {array.shape}, {array.dtype}')
    bgr = np.ascontiguousarray(array) if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.png', bgr)[1].tobytes()


def save_png(path: str | PathLike[str], array: np.ndarray) -> None:
    """Writes an (H, W) or RGB (H, W, 3) uint8 array as PNG, atomically.

    Raises:
        ValueError: The array has another type or shape.
    """
    write_atomic(path, encode_png(array))
