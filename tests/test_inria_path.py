"""From the archive of Inria to scores, a comparison and a submission, on tiles of true size, as documented.

Three attempts, one of each kind of training, train one epoch, resume for a second, and are tested. The archive has few
tiles of 5000x5000 pixels, and the crops are small, for two CPU cores.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from lale_mmseg.metainfo import inria
from tests.inria_tiles import make_inria
from tests.support import REPO, run_tool

pytestmark = pytest.mark.slow

#: Of few-shot roofs: training, validation, test. In the full protocol austin1 and vienna1 are for validation.
TILES = ('austin7', 'austin8', 'austin9', 'austin1', 'austin6', 'austin31', 'austin32', 'vienna1', 'vienna6')
HIDDEN = ('bellingham1', 'sfo2')
SIZE = 128
ATTEMPTS = ('lale_s1', 'ued-bes-sfm_x10', 'sam-conv_b')
#: Four steps of a schedule of 80k, without the validation at their end.
SHORT = [
    'train_cfg.max_iters=4',
    'train_cfg.val_begin=1000',
    'param_scheduler.0.end=2',
    'param_scheduler.1.begin=2',
    'param_scheduler.1.end=4',
    'default_hooks.checkpoint.interval=4',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=1',
]
SKIP = [f'{phase}_dataloader.dataset.missing_tiles=skip' for phase in ('train', 'val', 'test')]


@pytest.fixture(scope='module')
def archive(tmp_path_factory) -> Path:
    return make_inria(tmp_path_factory.mktemp('inria'), TILES, hidden=HIDDEN).parent


@pytest.fixture(scope='module')
def few_shot(archive) -> Path:
    out = archive / 'few_shot'
    run_tool('python', 'data_prep/inria.py', 'few-shot', archive, out, '--size', SIZE, '--missing', 'skip')
    checked = run_tool('python', 'data_prep/verify.py', out)
    assert 'no fault' in (checked.stdout + checked.stderr).lower()
    return out


@pytest.fixture(scope='module')
def full(archive) -> Path:
    out = archive / 'full'
    run_tool('python', 'data_prep/inria.py', 'full', archive, out, '--stride', 512, '--missing', 'skip')
    checked = run_tool('python', 'data_prep/verify.py', out)
    assert 'no fault' in (checked.stdout + checked.stderr).lower()
    return out


def config_of(name: str, protocol: str) -> Path:
    (path,) = (REPO / 'configs').glob(f'*/{name}_*_inria-{protocol}-*.py')
    return path


@pytest.fixture(scope='module')
def trained(few_shot, tmp_path_factory) -> dict[str, Path]:
    """Work dirs of the attempts, trained for one epoch, resumed for a second and tested, by name."""
    root = tmp_path_factory.mktemp('attempts')
    for name in ATTEMPTS:
        work_dir = root / name
        options = ['--work-dir', work_dir, '--cfg-options', f'data_root={few_shot}', *SKIP]
        small = ['train_dataloader.sampler.samples_per_epoch=8', 'train_dataloader.num_workers=1']
        if name == 'sam-conv_b':
            small += ['augmentation=light', f'model.backbone.cache_cfg.dir={work_dir / "features"}']
        train = ['python', 'tools/train.py', config_of(name, 'few-shot'), '--random-init']
        run_tool(*train, *options, *small, 'train_cfg.max_epochs=1')
        resumed = run_tool(*train, '--resume', *options, *small, 'train_cfg.max_epochs=2')
        assert 'resumed epoch: 1' in resumed.stdout + resumed.stderr
        (best,) = work_dir.glob('best_mean_tile_IoU_epoch_*.pth')
        config = config_of(name, 'few-shot')
        tested = run_tool('python', 'tools/test.py', config, best, *options, 'allow_held_out=True')
        assert 'READ AGAIN' not in tested.stdout + tested.stderr
    return {name: root / name for name in ATTEMPTS}


def test_attempts_are_trained_and_tested(trained, few_shot):
    for work_dir in trained.values():
        rows = pd.read_csv(work_dir / 'diagnostics.csv')
        assert rows['epoch'].tolist() == [1, 2]
        assert np.isfinite(rows[['train/loss', 'val/loss_dice', 'val/tile_IoU/austin1']].to_numpy()).all()
        scores = json.loads((work_dir / 'test' / 'metrics.json').read_text())
        assert scores['source']['tiles'] == ['austin31', 'austin32']
        assert scores['num_pixels'] == 2 * SIZE * SIZE
    lines = (few_shot / 'test_ledger.jsonl').read_text().splitlines()
    assert [json.loads(line)['read'] for line in lines[: len(ATTEMPTS)]] == [1] * len(ATTEMPTS)


def test_attempts_are_compared(trained, tmp_path):
    run_tool('python', 'tools/analysis/compare_runs.py', *trained.values(), '--out', tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *('comparison.json', 'comparison.md', 'curves.png', 'overlays.png', 'runs.csv')
    }
    content = json.loads((tmp_path / 'comparison.json').read_text())
    assert content['data_differences'] == {'val': {}, 'test': {}}
    for row in content['runs']:
        scores = json.loads((trained[row['run']] / 'test' / 'metrics.json').read_text())
        assert row['test mIoU'] == pytest.approx(scores['summary']['mIoU'])
        assert row['test reads'] == 1


def test_a_held_out_split_needs_the_flag_and_a_second_read_warns(trained, few_shot, tmp_path):
    config = config_of('lale_s1', 'few-shot')
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={few_shot}', *SKIP]
    done = run_tool('python', 'tools/train.py', config, *options, 'val_dataloader.dataset.split=test', check=False)
    assert done.returncode == 2
    assert 'held out' in done.stderr.strip().splitlines()[-1]
    test = ['python', 'tools/test.py', config, trained['lale_s1'] / 'epoch_2.pth', *options]
    done = run_tool(*test, check=False)
    assert done.returncode == 2
    assert 'allow_held_out=True' in done.stderr.strip().splitlines()[-1]
    done = run_tool(*test, 'allow_held_out=True')
    assert 'HELD-OUT TEST READ AGAIN: this is read 2' in done.stdout + done.stderr


def test_the_full_protocol_is_trained_tested_and_submitted(archive, full, tmp_path):
    config = config_of('lale_s1', 'full')
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={full}', *SKIP, 'model.test_cfg.stride=(512,512)']
    run_tool('python', 'tools/train.py', config, *options, *SHORT)
    run_tool('python', 'tools/test.py', config, tmp_path / 'iter_4.pth', *options)
    scores = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    assert set(scores['tiles']) == {'austin1', 'vienna1'}
    assert scores['num_pixels'] == 2 * inria.TILE_SIZE**2
    images = archive / 'AerialImageDataset' / 'test' / 'images'
    command = ['python', 'tools/analysis/inria_submission.py', tmp_path / 'iter_4.pth', '--images', images]
    run_tool(*command, '--out', tmp_path / 'masks')
    for tile in HIDDEN:
        with rasterio.open(tmp_path / 'masks' / f'{tile}.tif') as mask:
            assert (mask.count, mask.width, mask.height, mask.dtypes) == (1, 5000, 5000, ('uint8',))
            assert set(np.unique(mask.read(1))) <= {0, 255}
            assert mask.crs is not None
