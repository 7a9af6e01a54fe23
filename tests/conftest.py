"""What all tests share: the package registered in mmsegmentation's scope, small datasets, and the real chips."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from yapf.yapflib import yapf_api

import lale_mmseg.register  # noqa: F401
from data_prep.make_toy import make_toy
from tests.support import REPO

gc.freeze()  # mmengine collects garbage whenever a dataset is made, which takes long among all that was imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


_FORMATTED: dict[str, tuple] = {}
_format_code = yapf_api.FormatCode


def _format_once(text: str, **options):
    if text not in _FORMATTED:
        _FORMATTED[text] = _format_code(text, **options)
    return _FORMATTED[text]


yapf_api.FormatCode = _format_once  # mmengine formats the config of a run several times, which takes 0.1 s or more


@pytest.fixture(autouse=True)
def _mmseg_scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def toy_root(tmp_path_factory) -> Path:
    """A toy set of 64x64 pixels in ARAS400k's folders: 8 pairs to train, 5 to validate, 5 to test, 4 synthetic."""
    root = tmp_path_factory.mktemp('toy')
    make_toy(root, dict(train=8, val=5, test=5, synth=4), size=64, workers=1)
    return root


@pytest.fixture(scope='session')
def chips_root(toy_root) -> Path:
    """Real aerial chips where they are (LALE_MMSEG_CHIPS, or beside the repository), else a made-up palette set."""
    for candidate in (os.environ.get('LALE_MMSEG_CHIPS'), REPO.parent / 'shared' / 'data' / 'aerial_chips'):
        if candidate and (Path(candidate) / 'classes.csv').is_file():
            return Path(candidate)
    if not (toy_root / 'classes.csv').is_file():
        from lale_mmseg.metainfo.aras400k import CLASSES, COLORS

        rows = [f'{i},{name},{r},{g},{b}' for i, (name, (r, g, b)) in enumerate(zip(CLASSES, COLORS, strict=True))]
        (toy_root / 'classes.csv').write_text('\n'.join(['index,name,r,g,b', *rows]) + '\n')
    return toy_root
