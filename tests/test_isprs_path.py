"""From what ISPRS ships to scores under every protocol, on tiles of true size, each command as a user has it."""

import json
from pathlib import Path

import numpy as np
import pytest

from lale_mmseg.metainfo import isprs
from lale_mmseg.metainfo.protocols import find_protocol
from tests.isprs_tiles import VAIHINGEN_SIZES, make_potsdam, make_vaihingen
from tests.support import REPO, run_tool

pytestmark = pytest.mark.slow

#: One tile for each split of every protocol, and no more: training, validation under A, test.
POTSDAM_TILES = ('2_11', '2_10', '2_13')
VAIHINGEN_TILES = ('1', '30', '2', '11')
ITERATIONS = 10


@pytest.fixture(scope='module')
def potsdam(tmp_path_factory) -> Path:
    """Three tiles of 6000x6000, prepared and verified."""
    root = tmp_path_factory.mktemp('potsdam')
    make_potsdam(root / 'downloads', POTSDAM_TILES)
    return prepared('potsdam', root, POTSDAM_TILES)


@pytest.fixture(scope='module')
def vaihingen(tmp_path_factory) -> Path:
    """Four tiles of different sizes, prepared and verified."""
    root = tmp_path_factory.mktemp('vaihingen')
    make_vaihingen(root / 'downloads', {tile: VAIHINGEN_SIZES[tile] for tile in VAIHINGEN_TILES})
    return prepared('vaihingen', root, VAIHINGEN_TILES)


def prepared(dataset: str, root: Path, tiles: tuple[str, ...]) -> Path:
    run_tool('python', 'data_prep/isprs.py', dataset, root / 'downloads', root / 'data', '--tiles', *tiles)
    checked = run_tool('python', 'data_prep/verify.py', root / 'data')
    assert 'no fault' in checked.stdout.lower() + checked.stderr.lower()
    return root / 'data'


def trained_and_tested(config: Path, data: Path, work_dir: Path) -> dict:
    """Scores of a network after a few iterations."""
    skip = [f'{phase}_dataloader.dataset.missing_tiles=skip' for phase in ('train', 'val', 'test')]
    options = ['--work-dir', work_dir, '--cfg-options', f'data_root={data}', *skip, 'model.test_cfg.stride=(512,512)']
    short = [
        f'train_cfg.max_iters={ITERATIONS}',
        'train_cfg.val_interval=1000',
        f'param_scheduler.0.end={ITERATIONS // 2}',
        f'param_scheduler.1.begin={ITERATIONS // 2}',
        f'param_scheduler.1.end={ITERATIONS}',
        f'default_hooks.checkpoint.interval={ITERATIONS}',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=1',
    ]
    run_tool('python', 'tools/train.py', config, *options, *short)
    checkpoint = work_dir / f'iter_{ITERATIONS}.pth'
    run_tool('python', 'tools/test.py', config, checkpoint, '--out', work_dir / 'predictions', *options)
    return json.loads((work_dir / 'test' / 'metrics.json').read_text())


def check(dataset: str, letter: str, data: Path, work_dir: Path, tiles: tuple[str, ...]) -> None:
    protocol = find_protocol(letter)
    config = REPO / 'configs' / 'lale' / f'lale_s1_1xb8-80k_{dataset}-{protocol.name}-512x512.py'
    scores = trained_and_tested(config, data, work_dir)
    assert scores['protocol']['letter'] == letter
    assert scores['score_classes'] == list(protocol.averaged)
    tested = [tile for tile in protocol.split(dataset).test if tile in tiles]
    assert scores['num_images'] == len(tested) > 0
    # Every labelled pixel once: the matrix has as many as the labels of the protocol.
    counted = json.loads((data / 'statistics.json').read_text())['tiles']
    pixels = np.sum([counted[tile][protocol.test_labels] for tile in tested], axis=0)
    assert np.sum(scores['matrix'], axis=1).tolist() == pixels[: len(protocol.classes)].tolist()
    predicted = sorted(path.stem for path in (work_dir / 'predictions').glob('*.png'))
    assert predicted == sorted(isprs.tile_stem(dataset, tile) for tile in tested)


@pytest.mark.parametrize('letter', ['A', 'B', 'C'])
def test_potsdam_is_trained_and_tested(potsdam, tmp_path, letter):
    check('potsdam', letter, potsdam, tmp_path, POTSDAM_TILES)


def test_potsdam_tiles_have_529_windows(potsdam):
    for tile in POTSDAM_TILES:
        assert len(list((potsdam / 'windows' / 'images').glob(f'{tile}_*.png'))) == 529


@pytest.mark.parametrize('letter', ['A', 'B', 'C', 'D'])
def test_vaihingen_is_trained_and_tested(vaihingen, tmp_path, letter):
    check('vaihingen', letter, vaihingen, tmp_path, VAIHINGEN_TILES)
    if letter != 'A':
        return
    command = ['python', 'tools/analysis/compare_protocols.py', tmp_path / 'predictions', vaihingen]
    run_tool(*command, '--dataset', 'vaihingen', '--out', tmp_path / 'compared')
    (result,) = (tmp_path / 'compared').glob('*.json')
    assert list((tmp_path / 'compared').glob('*.png'))
    rows = json.loads(result.read_text())['protocols']
    assert list(rows) == list('ABCD')
    scores = {letter: row['summary']['mIoU'] for letter, row in rows.items()}
    assert len({scores[letter] for letter in 'ABC'}) == 3
    # C and D differ by what is predicted clutter, which a network of few iterations may never do.
    assert (scores['C'] == scores['D']) == (rows['D']['dropped']['pixels'] == 0)


def test_a_missing_tile_of_the_protocol_stops_a_run_at_its_start(potsdam, tmp_path):
    config = REPO / 'configs' / 'lale' / 'lale_s1_1xb8-80k_potsdam-geoseg-512x512.py'
    options = ['--work-dir', tmp_path, '--cfg-options', f'data_root={potsdam}', 'train_dataloader.num_workers=0']
    done = run_tool('python', 'tools/train.py', config, *options, check=False)
    assert done.returncode == 2
    assert 'no file of 21 of 22 tiles of split' in done.stderr.strip().splitlines()[-1]
