"""Files that are either complete under their name or not there at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from os import PathLike
from pathlib import Path

import cv2
import numpy as np


def write_atomic(path: str | PathLike[str], content: bytes | str) -> None:
    """Writes a file under a temporary name in the same folder (made if missing), then renames it; text as UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of different machines that share a folder may have one number.
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(8)}.tmp')
    try:
        temporary.write_bytes(content.encode('utf-8') if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_png(path: str | PathLike[str], array: np.ndarray) -> None:
    """Writes an (H, W) or RGB (H, W, 3) uint8 array as PNG, whole or not at all.

    Raises:
        ValueError: The array has another type or shape.
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f'{path}: a (H, W) or (H, W, 3) uint8 array is due, found {array.shape}, {array.dtype}')
    bgr = array if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode('.png', bgr)[1]
    write_atomic(path, encoded.tobytes())


def file_sha256(path: str | PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
