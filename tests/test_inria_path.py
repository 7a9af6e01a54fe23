"""From the archive of Inria to scores, a comparison and a submission, on tiles of true size, as documented.

Every attempt trains one epoch, resumes for a second, and is tested; the archive has few tiles, of 5000x5000 pixels, and
the crops are small, for two CPU cores.
"""

import json
from pathlib import Path

import numpy as np
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
ATTEMPTS = sorted((REPO / 'configs/buildings').glob('*_inria-few-shot-*.py'))
FULL = sorted((REPO / 'configs').glob('*/*_inria-full-*.py'))
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


def name_of(config: Path) -> str:
    return config.stem.partition('_1xb')[0]


def diagnostics(work_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (work_dir / 'diagnostics.jsonl').read_text().splitlines()]


def test_there_are_all_attempts():
    names = {name_of(path) for path in ATTEMPTS}
    published = {'unet_c32', 'unet_r34', 'deeplabv3plus_r34', 'sam-conv_b', 'sam-unet_b'}
    ours = {'lale_s1', 'ued-bes-sfm_x10'}
    assert names == published | ours


#: (attempt, its options): SAM with adapters, and with its frozen feature maps on disk.
SAM_VARIANTS = [
    ('sam-conv_b', ['model.backbone.lora_cfg.rank=4']),
    ('sam-unet_b', ['augmentation=light', 'model.backbone.cache_cfg.dir=features']),
]


@pytest.mark.parametrize(('name', 'variant'), [*((name_of(path), []) for path in ATTEMPTS), *SAM_VARIANTS])
def test_an_attempt_trains_resumes_and_is_tested_once(name, variant, few_shot, tmp_path):
    config = next(path for path in ATTEMPTS if name_of(path) == name)
    variant = [option.replace('dir=', f'dir={tmp_path}/') for option in variant]
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={few_shot}', *SKIP, *variant]
    small = ['train_dataloader.sampler.samples_per_epoch=8', 'train_dataloader.num_workers=1']
    train = ['python', 'tools/train.py', config, '--random-init']
    run_tool(*train, *options, *small, 'train_cfg.max_epochs=1')
    assert [row['epoch'] for row in diagnostics(tmp_path)] == [1]
    resumed = run_tool(*train, '--resume', *options, *small, 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1' in resumed.stdout + resumed.stderr
    rows = diagnostics(tmp_path)
    assert [row['epoch'] for row in rows] == [1, 2]
    assert set(rows[-1]['tiles']) == {'austin1', 'austin6'}
    assert np.isfinite(rows[-1]['train']['loss'])
    assert np.isfinite(rows[-1]['val']['loss_dice'])
    assert rows[-1]['trainable_parameters'] <= rows[-1]['parameters']
    assert not (tmp_path / 'test_ledger.jsonl').exists()

    (best,) = tmp_path.glob('best_mIoU_epoch_*.pth')
    tested = run_tool('python', 'tools/test.py', config, best, *options)
    scores = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    assert scores['source']['split'] == 'test'
    assert scores['source']['tiles'] == ['austin31', 'austin32']
    assert scores['num_pixels'] == 2 * SIZE * SIZE
    (line,) = (tmp_path / 'test_ledger.jsonl').read_text().splitlines()
    assert json.loads(line)['read'] == 1
    assert 'READ AGAIN' not in tested.stdout + tested.stderr


def test_the_attempts_are_compared_and_a_second_read_of_the_test_is_said(few_shot, tmp_path):
    chosen = [path for path in ATTEMPTS if path.stem.startswith(('lale_s1_', 'ued-'))]
    for config in chosen:
        work_dir = tmp_path / config.stem
        # Another seed: the ledger of the data may know these attempts from the test above.
        options = ['--work-dir', work_dir, '--cfg-options', f'data_root={few_shot}', *SKIP, 'randomness.seed=7']
        small = ['train_dataloader.sampler.samples_per_epoch=8', 'train_dataloader.num_workers=1']
        run_tool('python', 'tools/train.py', config, *options, *small, 'train_cfg.max_epochs=1')
        for _ in range(2):
            tested = run_tool('python', 'tools/test.py', config, work_dir / 'epoch_1.pth', *options)
        assert 'HELD-OUT TEST READ AGAIN: this is read 2' in tested.stdout + tested.stderr
        assert [json.loads(line)['read'] for line in (work_dir / 'test_ledger.jsonl').read_text().splitlines()] == [
            1,
            2,
        ]
    work_dirs = [tmp_path / config.stem for config in chosen]
    run_tool('python', 'tools/analysis/compare_attempts.py', *work_dirs, '--out', tmp_path / 'compared')
    made = {path.name for path in (tmp_path / 'compared').iterdir()}
    assert {'attempts.json', 'attempts.md', 'convergence.png', 'predictions.png'} <= made
    content = json.loads((tmp_path / 'compared' / 'attempts.json').read_text())
    assert content['comparable'] is True
    for row, config in zip(sorted(content['attempts'], key=lambda row: row['label']), chosen, strict=True):
        work_dir = tmp_path / config.stem
        scores = json.loads((work_dir / 'test' / 'metrics.json').read_text())
        assert row['label'] == config.stem
        assert row['test']['mIoU'] == scores['summary']['mIoU']
        assert row['val']['mIoU'] == pytest.approx(diagnostics(work_dir)[0]['val']['mIoU'])
        assert (row['test_run']['checkpoint'], row['test_run']['epoch'], row['test_reads']) == ('epoch_1.pth', 1, 2)
        assert [row['test_run']['start']] == diagnostics(work_dir)[0]['starts']
        # The checkpoint of the epoch that the validation is of, predicted in the same way.
        assert not [note for note in row['notes'] if 'TEST' in note]


def test_training_cannot_open_the_test_split(few_shot, tmp_path):
    config = next(path for path in ATTEMPTS if path.stem.startswith('lale_s1_'))
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={few_shot}', *SKIP]
    done = run_tool('python', 'tools/train.py', config, *options, 'val_dataloader.dataset.split=test', check=False)
    assert done.returncode == 2
    assert 'held out' in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / 'test_ledger.jsonl').exists()


@pytest.mark.parametrize('config', FULL, ids=lambda path: path.stem.partition('_1xb')[0])
def test_the_full_protocol_trains_and_is_tested(config, full, tmp_path):
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={full}', *SKIP, 'model.test_cfg.stride=(512,512)']
    run_tool('python', 'tools/train.py', config, '--random-init', *options, *SHORT)
    run_tool('python', 'tools/test.py', config, tmp_path / 'iter_4.pth', *options)
    scores = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    assert set(scores['cities']) == {'austin', 'vienna'}
    assert set(scores['tiles']) == {'austin1', 'vienna1'}
    assert scores['num_pixels'] == 2 * inria.TILE_SIZE**2


def test_hidden_cities_are_submitted(archive, full, tmp_path):
    config = next(path for path in FULL if path.stem.startswith('lale_s1_'))
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={full}', *SKIP]
    run_tool('python', 'tools/train.py', config, *options, *SHORT)
    images = archive / 'AerialImageDataset' / 'test' / 'images'
    command = ['python', 'tools/analysis/inria_submission.py', config, tmp_path / 'iter_4.pth', '--images', images]
    run_tool(*command, '--out', tmp_path / 'masks', '--partial', '--stride', 512)
    for tile in HIDDEN:
        with rasterio.open(tmp_path / 'masks' / f'{tile}.tif') as mask:
            assert (mask.count, mask.width, mask.height, mask.dtypes) == (1, 5000, 5000, ('uint8',))
            assert set(np.unique(mask.read(1))) <= {0, 255}
            assert mask.crs is not None
