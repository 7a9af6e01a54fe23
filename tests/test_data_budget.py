"""A study of the number of training tiles: its runs, what it keeps, and its results.

A script of a few lines replaces tools/train.py: it leaves the log of a training whose scores are known.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lale_mmseg.errors import ConfigError
from lale_mmseg.files import save_png
from tests.runs import run_in_process
from tests.support import REPO
from tests.test_docs import load_script

TOOL = 'tools/analysis/data_budget.py'
TRAINS = """
import json, os, sys
from pathlib import Path
from tests.logs import write_log

words = sys.argv[1:]
folder = Path(words[words.index('--work-dir') + 1])
seed = int(words[words.index('--seed') + 1])
config = {}
exec(Path(words[0]).read_text(), config)  # without its base
indices = config['train_dataloader']['dataset']['indices']
base = {}
exec(Path(config['_base_']).read_text(), base)
with open(folder / 'calls.jsonl', 'a') as file:
    file.write(json.dumps(dict(words=words, indices=indices)) + '\\n')
if folder.name in os.environ.get('FAIL', '').split():
    print('loss is nan at step 7')
    sys.exit(3)
hooks = base.get('default_hooks')
scores = [10.0, 50 + 2 * len(indices) + seed, 20.0]
write_log(folder, scores, f'2026_{len(list(folder.iterdir()))}', default_hooks=hooks)
"""
CONFIG = """
_base_ = '{repo}/configs/_base_/default_runtime.py'
data_root = '{root}'
train_dataloader = dict(dataset=dict(type='PaletteDataset', split='train', pipeline=[dict(type='LoadBands')]))
val_dataloader = dict(dataset=dict(type='PaletteDataset', split='val', pipeline=[dict(type='LoadBands')]))
model = dict(type='EncoderDecoder', decode_head=dict(num_classes=2))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
"""


@pytest.fixture
def config(tmp_path) -> Path:
    """A config with eight images to train on."""
    root = tmp_path / 'data'
    for split, count in (('train', 8), ('val', 1)):
        names = [f'{split}{number}' for number in range(count)]
        for name in names:
            for folder in ('images', 'masks'):
                save_png(root / folder / f'{name}.png', np.zeros((8, 8, 3), np.uint8))
        (root / f'{split}.txt').write_text('\n'.join(names) + '\n')
    (root / 'classes.csv').write_text('index,name,r,g,b\n0,background,0,0,0\n1,building,255,0,0\n')
    path = tmp_path / 'roofs.py'
    path.write_text(CONFIG.format(repo=REPO, root=root))
    return path


@pytest.fixture
def study(config, tmp_path, monkeypatch, capsys):
    """Runs a study with made-up runs; returns the exit status and what was printed."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    (tmp_path / 'train.py').write_text(TRAINS)
    monkeypatch.setattr(load_script(TOOL), 'TRAIN', tmp_path / 'train.py')
    monkeypatch.setenv('PYTHONPATH', str(REPO))

    def run(*options, tiles=(2, 4), seeds=(0, 1)):
        words = [config, '--tiles', *tiles, '--seeds', *seeds, '--work-dir', tmp_path / 'study', *options]
        status = run_in_process(TOOL, monkeypatch, *words)
        return status, capsys.readouterr()

    return run


def calls(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'calls.jsonl').read_text().splitlines()]


def test_a_study(study, tmp_path):
    """The score is 50 + 2 tiles + seed: 54, 55 and 58, 59 with means 54.5 and 58.5 and a deviation of sqrt(1/2)."""
    status, printed = study('--jobs', 2, '--random-init', '--cfg-options', 'optim_wrapper.optimizer.lr=0.5')
    out = tmp_path / 'study'
    assert status == 0
    result = json.loads((out / 'data_budget.json').read_text())
    spread = dict(count=2, std=pytest.approx(0.5**0.5))
    assert result['summary'] == [
        dict(tiles=2, mean=54.5, min=54.0, max=55.0, **spread),
        dict(tiles=4, mean=58.5, min=58.0, max=59.0, **spread),
    ]
    rows = pd.read_csv(out / 'data_budget.csv')
    assert rows[['tiles', 'seed', 'score', 'best']].to_numpy().tolist() == [
        [2, 0, 54, 2], [2, 1, 55, 2], [4, 0, 58, 2], [4, 1, 59, 2],
    ]  # fmt: skip
    assert '54.5' in printed.out
    names = {}
    for row in rows.itertuples():
        (call,) = calls(out / f'tiles-{row.tiles:02d}_seed-{row.seed}')
        assert [f'train{index}' for index in call['indices']] == row.tile_names.split()
        assert call['words'][-3:] == ['--random-init', '--cfg-options', 'optim_wrapper.optimizer.lr=0.5']
        assert '--resume' in call['words']
        names[row.tiles, row.seed] = set(call['indices'])
    # Of one seed the larger set contains the smaller one; seeds choose differently.
    assert names[2, 0] < names[4, 0]
    assert names[2, 1] < names[4, 1]
    assert names[4, 0] != names[4, 1]
    assert min(cv2.imread(str(out / 'data_budget.png')).shape[:2]) > 300


def test_the_score_is_the_one_that_selects_the_checkpoint(study, config, tmp_path):
    """The first of the means over tiles, 100 - 10, is the best one."""
    with config.open('a') as file:
        file.write("default_hooks = dict(checkpoint=dict(save_best='mean_tile_IoU'))\n")
    assert 'best validation mean_tile_IoU of all classes' in study(tiles=(2,), seeds=(0,))[1].out
    (run,) = json.loads((tmp_path / 'study' / 'data_budget.json').read_text())['runs']
    assert (run['score'], run['best']) == (90, 1)


def test_finished_runs_are_kept_and_failed_ones_repeated(study, tmp_path, monkeypatch):
    monkeypatch.setenv('FAIL', 'tiles-04_seed-1')
    status, printed = study()
    assert status == 1
    assert 'tiles-04_seed-1: training ended with status 3' in printed.err
    assert 'loss is nan at step 7' in printed.err
    assert len(pd.read_csv(tmp_path / 'study' / 'data_budget.csv')) == 3
    monkeypatch.delenv('FAIL')
    assert study()[0] == 0
    assert len(calls(tmp_path / 'study' / 'tiles-04_seed-1')) == 2
    assert len(calls(tmp_path / 'study' / 'tiles-02_seed-0')) == 1
    with pytest.raises(ConfigError, match='trained with another config or other overrides'):
        study('--cfg-options', 'optim_wrapper.optimizer.lr=0.5')


def test_more_tiles_than_there_are_is_an_error(study, tmp_path):
    with pytest.raises(ConfigError, match='--tiles 9: the training set has 8 tiles'):
        study(tiles=(9,))
    assert not (tmp_path / 'study').exists()


def test_windows_of_a_tile_stay_together(study, config, tmp_path):
    """With the `tile_pattern` of a dataset a tile is all of its windows."""
    text = config.read_text().replace("type='PaletteDataset', split='train'", "type='TwoWindows'")
    module = tmp_path / 'two_windows.py'
    module.write_text(
        'from mmseg.datasets import BaseSegDataset\nfrom mmseg.registry import DATASETS\n'
        '@DATASETS.register_module(force=True)\nclass TwoWindows(BaseSegDataset):\n'
        "    METAINFO = dict(classes=('a', 'b'), tile_pattern=r'(?P<tile>[a-z]+)_\\d')\n"
        '    def load_data_list(self):\n'
        "        return [dict(img_path=f'/{tile}_{n}.png') for tile in ('a', 'b', 'c') for n in range(2)]\n"
    )
    exec(module.read_text(), {})
    config.write_text(text)
    assert study(tiles=(2,), seeds=(0,))[0] == 0
    (call,) = calls(tmp_path / 'study' / 'tiles-02_seed-0')
    assert call['indices'] in ([0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 4, 5])
