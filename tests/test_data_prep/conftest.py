"""Fixtures of the data preparation tests: small pairs of images and masks."""

from pathlib import Path

import numpy as np
import pytest

from lale_mmseg.files import encode_png, write_atomic
from lale_mmseg.metainfo import Palette, aras400k


@pytest.fixture
def palette() -> Palette:
    return Palette(aras400k.CLASSES, aras400k.COLORS)


@pytest.fixture
def make_pair(palette):
    """Function (number, label=0, size=4) -> PNG files of an image of one grey value and of a mask of one class."""

    def make(number: int, label: int = 0, size: int = 4) -> tuple[bytes, bytes]:
        image = np.full((size, size, 3), number, np.uint8)
        return encode_png(image), encode_png(palette.encode(np.full((size, size), label)))

    return make


@pytest.fixture
def put_pair(make_pair):
    """Function (folder, stem, number, label=0) that writes FOLDER/{images,masks}/STEM.png."""

    def put(folder: Path, stem: str, number: int, label: int = 0) -> None:
        for kind, data in zip(('images', 'masks'), make_pair(number, label), strict=True):
            write_atomic(folder / kind / f'{stem}.png', data)

    return put
