"""A study of the number of training tiles: its plan, its runs, what it keeps, and what it says of them.

Most tests put a script of a few lines in the place of tools/train.py: it leaves the files of a training whose scores
are known. The slow one trains.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.files import save_png
from tests.support import REPO, run_tool
from tests.test_docs import load_script

try:
    import fcntl
except ImportError:
    fcntl = None

TOOL = 'tools/analysis/data_budget.py'
TRAINS = """
import json, os, sys
from pathlib import Path

words = sys.argv[1:]
folder = Path(words[words.index('--work-dir') + 1])
seed = int(words[words.index('--seed') + 1])
config = {}
exec(Path(words[0]).read_text(), config)  # without its base
indices = config['train_dataloader']['dataset']['indices']
folder.mkdir(parents=True, exist_ok=True)
with open(folder / 'calls.jsonl', 'a') as file:
    file.write(json.dumps(dict(words=words, indices=indices)) + '\\n')
if folder.name in os.environ.get('FAIL', '').split():
    print('loss is nan at step 7')
    sys.exit(3)
scores = [10.0, 50 + 2 * len(indices) + seed, 20.0]
rows = [dict(epoch=epoch + 1, val=dict(mIoU=score)) for epoch, score in enumerate(scores)]
(folder / 'diagnostics.jsonl').write_text('\\n'.join(map(json.dumps, rows)) + '\\n')
"""
CONFIG = """
_base_ = '{repo}/configs/_base_/default_runtime.py'
data_root = '{root}'
pipeline = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
loader = dict(batch_size=2, num_workers=0)
train_dataloader = dict(
    **loader, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='PaletteDataset', split='train', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='val', pipeline=pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='test', pipeline=pipeline, test_mode=True),
)
val_evaluator = dict(type='TileSegmentationMetric', score_classes=[1])
test_evaluator = dict(type='TileSegmentationMetric', score_classes=[1])
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True, size=(32, 32)),
    backbone=dict(
        type='UNet', base_channels=4, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1), dec_num_convs=(1,),
        downsamples=(True,), enc_dilations=(1, 1), dec_dilations=(1,), norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='FCNHead', in_channels=4, in_index=1, channels=4, num_convs=0, concat_input=False, num_classes=2,
        norm_cfg=norm_cfg, align_corners=False, loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    test_cfg=dict(mode='whole', keep_logits=True),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=True, interval=1, save_best='mIoU', rule='greater'),
    report=dict(type='ReportHook'),
    diagnostics=dict(type='EpochDiagnosticsHook'),
)
"""


@pytest.fixture
def config(tmp_path) -> Path:
    """A config with eight images to train on and two to validate on, and no test images at all."""
    root = tmp_path / 'data'
    for split, count in (('train', 8), ('val', 2)):
        names = [f'{split}{number}' for number in range(count)]
        for seed, name in enumerate(names):
            label = np.kron(np.random.default_rng(seed).integers(0, 2, (4, 4)), np.ones((8, 8))).astype(np.uint8)
            save_png(root / 'images' / f'{name}.png', np.repeat(label[..., None] * 200 + 20, 3, axis=2))
            save_png(root / 'masks' / f'{name}.png', label[..., None] * np.array([255, 0, 0], np.uint8))
        (root / f'{split}.txt').write_text('\n'.join(names) + '\n')
    (root / 'classes.csv').write_text('index,name,r,g,b\n0,background,0,0,0\n1,building,255,0,0\n')
    path = tmp_path / 'roofs.py'
    path.write_text(CONFIG.format(repo=REPO, root=root))
    return path


@pytest.fixture
def tool(monkeypatch):
    """The tool in this process."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    return load_script(TOOL)


@pytest.fixture
def study(config, tmp_path, tool, monkeypatch, capsys):
    """Runs a study whose trainings are made up; returns the exit status and what was printed."""
    (tmp_path / 'train.py').write_text(TRAINS)
    monkeypatch.setattr(tool, 'TRAIN', tmp_path / 'train.py')
    monkeypatch.setattr(tool, '_POLL', 0.05)

    def run(*options, tiles=(2, 4), seeds=(0, 1), file=config):
        words = [file, '--tiles', *tiles, '--seeds', *seeds, '--work-dir', tmp_path / 'study', *options]
        monkeypatch.setattr('sys.argv', [TOOL, *map(str, words)])
        status = tool.main()
        return status, capsys.readouterr()

    return run


def calls(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'calls.jsonl').read_text().splitlines()]


def test_a_study(study, tmp_path):
    """IoU is 50 + 2 tiles + seed: 54, 55 and 58, 59 with means 54.5 and 58.5 and a deviation of sqrt(1/2)."""
    status, said = study('--cfg-options', 'optim_wrapper.optimizer.lr=0.5')
    out = tmp_path / 'study'
    assert status == 0
    result = json.loads((out / 'data_budget.json').read_text())
    assert result['summary'] == [
        dict(tiles=2, runs=2, mean=54.5, std=pytest.approx(0.5**0.5), min=54.0, max=55.0, best_epoch=2.0),
        dict(tiles=4, runs=2, mean=58.5, std=pytest.approx(0.5**0.5), min=58.0, max=59.0, best_epoch=2.0),
    ]
    lines = [line.split() for line in said.out.splitlines()]
    assert ['2', '2', '54.50', '0.71', '54.00', '55.00', '2.0'] in lines
    assert ['4', '2', '58.50', '0.71', '58.00', '59.00', '2.0'] in lines
    rows = list(csv.DictReader((out / 'data_budget.csv').open()))
    assert [(row['name'], float(row['IoU'])) for row in rows] == [
        ('tiles-02_seed-0', 54.0), ('tiles-02_seed-1', 55.0), ('tiles-04_seed-0', 58.0), ('tiles-04_seed-1', 59.0),
    ]  # fmt: skip
    # What a run trained on is what its record says.
    for run in result['runs']:
        (call,) = calls(out / run['name'])
        assert [f'train{index}' for index in call['indices']] == run['tile_names']
        assert len(run['tile_names']) == run['tiles']
        assert call['words'][-2:] == ['--cfg-options', 'optim_wrapper.optimizer.lr=0.5']
        assert call['words'][call['words'].index('--resume') + 1] == 'auto'
    picture = cv2.imread(str(out / 'data_budget.png'))
    assert min(picture.shape[:2]) > 300


@pytest.mark.parametrize(
    ('names', 'due'),
    [(['roof'], 'IoU of roof'), (['water', 'road'], 'mIoU of water, road'), (None, 'mIoU')],
)
def test_the_score_is_named_as_the_validation_names_it(study, tmp_path, monkeypatch, tool, names, due):
    if names:
        line = f"(folder / 'val' / 'metrics.json').write_text(json.dumps(dict(score_classes={names})))"
        (tmp_path / 'train.py').write_text(f"{TRAINS}\n(folder / 'val').mkdir(exist_ok=True)\n{line}\n")
    drawn = []
    monkeypatch.setattr(tool, 'plot_budget', lambda *args: drawn.append(args[-1]))
    _, said = study(tiles=[2], seeds=[0])
    assert f'best validation {due}, percent' in said.out
    assert f'tiles-02_seed-0: {due} 54.00 at epoch 2 of 3' in said.out
    content = json.loads((tmp_path / 'study' / 'data_budget.json').read_text())
    assert (content['score'], drawn) == (f'best validation {due}, percent', [due])


def test_an_interrupted_study_ends_its_trainings_and_notes_their_time(study, tmp_path, monkeypatch, tool):
    (tmp_path / 'train.py').write_text('import time; time.sleep(120)')
    started = []

    class Noted(tool.Training):
        def __init__(self, *args):
            super().__init__(*args)
            started.append(self)

    def interrupted(_):
        patch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, 'Training', Noted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool.time, 'sleep', interrupted)
        with pytest.raises(KeyboardInterrupt):
            study(tiles=[2], seeds=[0])
    assert started[0].process.returncode is not None
    first = json.loads((tmp_path / 'study' / 'tiles-02_seed-0' / 'budget.json').read_text())
    assert (first['finished'], first['seconds'] > 0) == (False, True)
    (tmp_path / 'train.py').write_text(TRAINS)
    study(tiles=[2], seeds=[0])
    last = json.loads((tmp_path / 'study' / 'tiles-02_seed-0' / 'budget.json').read_text())
    assert (last['finished'], last['seconds'] > first['seconds']) == (True, True)


@pytest.mark.skipif(fcntl is None, reason='locks of files are of Unix')
def test_a_training_that_goes_on_keeps_others_from_its_folder(study, tmp_path):
    """As one whose study was killed: it holds its log, and no second one starts beside it."""
    command = [sys.executable, '-c', 'import time; time.sleep(120)']
    lines = [
        'import subprocess',
        'from pathlib import Path',
        f'left = subprocess.Popen({command})',
        f'Path({str(tmp_path / "left.pid")!r}).write_text(str(left.pid))',
    ]
    (tmp_path / 'train.py').write_text('\n'.join(lines))
    study(tiles=[2], seeds=[0])  # without a result
    (tmp_path / 'train.py').write_text(TRAINS)
    try:
        status, said = study(tiles=[2, 4], seeds=[0])
    finally:
        os.kill(int((tmp_path / 'left.pid').read_text()), signal.SIGKILL)
    assert status == 1
    assert 'error: tiles-02_seed-0: ' in said.err
    assert 'tiles-02_seed-0: another training goes on there (it holds budget.log)' in said.err
    assert not (tmp_path / 'study' / 'tiles-02_seed-0' / 'calls.jsonl').exists()
    assert len(calls(tmp_path / 'study' / 'tiles-04_seed-0')) == 1
    with (tmp_path / 'study' / 'tiles-02_seed-0' / 'budget.log').open() as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # until it has ended
    assert study(tiles=[2, 4], seeds=[0])[0] == 0


def test_the_chart_says_how_many_seeds(tmp_path, monkeypatch):
    from lale_mmseg.evaluation import attempt_plots

    figures = []
    monkeypatch.setattr(attempt_plots, 'save_figure', lambda figure, _: figures.append(figure))
    for points, seeds in (
        ({2: {0: 1.0, 1: 2.0}, 4: {0: 3.0, 1: 4.0}}, '2 seeds'),
        ({2: {0: 1.0}, 4: {0: 3.0, 1: 4.0}}, '1 to 2 seeds'),
        ({2: {0: 1.0}}, '1 seed'),
    ):
        attempt_plots.plot_budget(points, tmp_path / 'a.png', 'title', 'IoU of roof')
        texts = [text.get_text() for text in figures[-1].axes[0].get_legend().get_texts()]
        assert f'mean and standard deviation (n - 1) of {seeds}' in texts


def test_larger_sets_hold_the_smaller_ones(tool):
    from _budget import Training, plan

    training = Training(
        'train_dataloader.dataset', {f't{number}': [2 * number, 2 * number + 1] for number in range(12)}
    )
    runs = plan(training, [12, 5, 8], [3, 0], Path('out'))
    assert [run.name for run in runs] == [f'tiles-{n:02d}_seed-{s}' for n in (5, 8, 12) for s in (0, 3)]
    chosen = {(run.count, run.seed): set(run.tiles) for run in runs}
    for seed in (0, 3):
        assert chosen[5, seed] < chosen[8, seed] < chosen[12, seed]
    assert chosen[5, 0] != chosen[5, 3]
    # All samples of a tile, and of no other.
    assert all(
        run.indices == [i for tile in run.tiles for i in (2 * int(tile[1:]), 2 * int(tile[1:]) + 1)] for run in runs
    )
    assert [run.tiles for run in plan(training, [5], [0], Path('out'))] == [runs[0].tiles]


def test_windows_of_a_tile_stay_together(tool, tmp_path):
    """Under a protocol with windows a tile is all of its windows."""
    from _budget import training_set
    from mmengine.config import Config

    image = np.zeros((8, 8, 3), np.uint8)
    for stem in ('austin6_0_0_8_8', 'austin6_8_0_16_8', 'vienna12_0_0_8_8', 'austin16_0_0_8_8'):
        save_png(tmp_path / 'windows' / 'images' / f'{stem}.png', image)
        save_png(tmp_path / 'windows' / 'masks' / f'{stem}.png', image[..., 0])
    dataset = dict(type='InriaDataset', protocol='full', split='train', missing_tiles='skip', pipeline=[])
    found = training_set(Config(dict(model=dict(), data_root=str(tmp_path), train_dataloader=dict(dataset=dataset))))
    assert found.path == 'train_dataloader.dataset'
    assert found.tiles == {'austin16': [0], 'austin6': [1, 2], 'vienna12': [3]}


def test_names_that_the_pattern_of_the_data_set_does_not_match_are_an_error(tool, config, monkeypatch):
    """As of TileSegmentationMetric, which matches whole names: a study would count other tiles than the scores."""
    from _budget import training_set
    from mmengine.config import Config

    from lale_mmseg.datasets import PaletteDataset

    metainfo = {**PaletteDataset.METAINFO, 'tile_pattern': r'(?P<tile>train\d)'}
    monkeypatch.setattr(PaletteDataset, 'METAINFO', metainfo)
    assert len(training_set(Config.fromfile(config)).tiles) == 8
    monkeypatch.setattr(PaletteDataset, 'METAINFO', {**metainfo, 'tile_pattern': r'(?P<tile>trai)'})
    with pytest.raises(DataError, match=r"train0: its name does not match tile_pattern '\(\?P<tile>trai\)'"):
        training_set(Config.fromfile(config))


def test_a_list_of_datasets_is_refused(study, config, tmp_path):
    """No child config can change one entry of a list."""
    one = "dataset=dict(type='PaletteDataset', split='train', pipeline=pipeline)"
    text = config.read_text()
    assert one in text
    config.write_text(text.replace(one, f"dataset=dict(type='ConcatDataset', datasets=[{one.partition('=')[2]}])"))
    with pytest.raises(ConfigError, match=r'train_dataloader\.dataset\.datasets\.0 stands in a list of datasets'):
        study()
    assert not (tmp_path / 'study').exists()


def test_finished_runs_are_kept_and_failed_ones_tried_again(study, tmp_path, monkeypatch):
    monkeypatch.setenv('FAIL', 'tiles-02_seed-1')
    status, said = study('--jobs', 2)
    out = tmp_path / 'study'
    assert status == 1
    assert 'error: tiles-02_seed-1: training ended with status 3\n  loss is nan at step 7' in said.err
    summary = json.loads((out / 'data_budget.json').read_text())['summary']
    assert [(row['tiles'], row['runs'], row['std']) for row in summary] == [
        (2, 1, None),
        (4, 2, pytest.approx(0.5**0.5)),
    ]
    monkeypatch.setenv('FAIL', '')
    status, said = study()
    assert (status, '4 runs, 3 finished before' in said.out) == (0, True)
    assert [len(calls(out / f'tiles-02_seed-{seed}')) for seed in (0, 1)] == [1, 2]
    status, said = study()
    assert '4 runs, 4 finished before' in said.out
    assert json.loads((out / 'data_budget.json').read_text())['summary'][0]['runs'] == 2


@pytest.mark.parametrize('change', ['override', 'config', 'weights'])
def test_folders_of_another_study_are_refused(study, tmp_path, config, change):
    study(tiles=[2], seeds=[0])
    options = ()
    if change == 'config':
        config.write_text(config.read_text().replace('max_epochs=2', 'max_epochs=5'))
    elif change == 'override':
        options = ('--cfg-options', 'optim_wrapper.optimizer.lr=0.5')
    else:
        config.write_text(config.read_text().replace("type='UNet',", "type='UNet', init_cfg=dict(type='Pretrained'),"))
    field = {'config': 'max_epochs 2, now 5', 'override': r'lr 0\.01, now 0\.5', 'weights': r'init_cfg\.type None, now'}
    with pytest.raises(ConfigError, match=rf'tiles-02_seed-0: was trained with another config.*{field[change]}'):
        study(*options, tiles=[2, 4], seeds=[0])
    assert not (tmp_path / 'study' / 'tiles-04_seed-0').exists()


def test_what_cannot_be_run_is_said_before_anything_runs(study, tmp_path, config):
    with pytest.raises(ConfigError, match='--tiles 9: the training set has 8 tiles'):
        study(tiles=[2, 9])
    with pytest.raises(ConfigError, match='--tiles 0:'):
        study(tiles=[0])
    with pytest.raises(ConfigError, match='--seeds 1 1: each number once'):
        study(seeds=[1, 1])
    (tmp_path / 'study' / 'tiles-04_seed-1').mkdir(parents=True)
    (tmp_path / 'study' / 'tiles-04_seed-1' / 'epoch_1.pth').touch()
    with pytest.raises(ConfigError, match=r'tiles-04_seed-1: has files and no budget\.json'):
        study()
    assert [path.name for path in (tmp_path / 'study').iterdir()] == ['tiles-04_seed-1']
    config.write_text(config.read_text().replace("diagnostics=dict(type='EpochDiagnosticsHook'),", ''))
    with pytest.raises(ConfigError, match='has no EpochDiagnosticsHook'):
        study()


def test_a_training_without_scores_is_no_result(study, tmp_path):
    (tmp_path / 'train.py').write_text('')
    status, said = study(tiles=[2], seeds=[0])
    assert status == 1
    assert 'diagnostics.jsonl: no such file' in said.err
    assert not json.loads((tmp_path / 'study' / 'tiles-02_seed-0' / 'budget.json').read_text())['finished']


def test_random_weights_are_asked_of_the_training(study, tmp_path):
    study('--random-init', tiles=[2], seeds=[0])
    assert '--random-init' in calls(tmp_path / 'study' / 'tiles-02_seed-0')[0]['words']
    with pytest.raises(ConfigError, match='random_init True, now False'):
        study(tiles=[2], seeds=[0])


def test_spaces_in_a_path_are_kept(study, config, tmp_path):
    """mmengine takes them out of an override, so that another folder is read, or one that nobody named is missing."""
    (tmp_path / 'data').rename(tmp_path / 'my  data')
    assert study('--cfg-options', f'data_root={tmp_path}/my  data', tiles=[2], seeds=[0])[0] == 0


def test_missing_data_are_named(study, config):
    config.write_text(config.read_text().replace("split='train'", "split='nothing'"))
    with pytest.raises(DataError, match='nothing'):
        study()


@pytest.mark.slow
def test_real_trainings(config, tmp_path):
    """Two trainings, the second stopped and taken up again; the test split is not there, and not missed."""
    command = ['python', TOOL, config, '--tiles', 2, '--seeds', 0, '--work-dir', tmp_path / 'study']
    run_tool(*command)
    first = tmp_path / 'study' / 'tiles-02_seed-0'
    scores = [json.loads(line)['val']['mIoU'] for line in (first / 'diagnostics.jsonl').read_text().splitlines()]
    result = json.loads((tmp_path / 'study' / 'data_budget.json').read_text())
    assert len(scores) == 2
    assert result['runs'][0]['IoU'] == max(scores)
    before = (first / 'diagnostics.jsonl').stat().st_mtime_ns
    more = [str(word) for word in [sys.executable, REPO / TOOL, *command[2:4], 2, 6, *command[5:]]]
    process = subprocess.Popen(more, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    second = tmp_path / 'study' / 'tiles-06_seed-0'
    while process.poll() is None and not (second / 'epoch_1.pth').exists():
        time.sleep(0.05)
    process.terminate()
    assert process.communicate()[1].splitlines()[-1] == 'interrupted; to continue, run the same command'
    assert process.returncode == 130
    record = json.loads((second / 'budget.json').read_text())
    assert (record['finished'], record['seconds'] > 0) == (False, True)
    done = run_tool(*more)  # its training has ended, or this one could not begin
    assert '2 runs' in done.stdout
    assert (first / 'diagnostics.jsonl').stat().st_mtime_ns == before
    assert [json.loads(line)['epoch'] for line in (second / 'diagnostics.jsonl').read_text().splitlines()] == [1, 2]
    assert json.loads((tmp_path / 'study' / 'data_budget.json').read_text())['summary'][1]['tiles'] == 6
    refused = run_tool(*more, '--cfg-options', 'train_cfg.max_epochs=3', check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
