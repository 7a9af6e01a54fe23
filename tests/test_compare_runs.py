"""Training runs side by side: groups of seeds, test scores, differing configs and data, curves and pictures."""

import json
import re
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation.run_plots import paint_findings
from tests.runs import run_in_process, write_log, write_run, write_split
from tests.support import REPO
from tests.test_docs import load_script
from tests.test_engine.tiny_run import build, tiny_config

TOOL = 'tools/analysis/compare_runs.py'


@pytest.fixture(name='compare')
def comparing(tmp_path, monkeypatch, capsys):
    """Runs the tool; returns what it printed and comparison.json."""

    def run(*words):
        run_in_process(TOOL, monkeypatch, *words, '--out', tmp_path / 'out')
        return capsys.readouterr().out, json.loads((tmp_path / 'out' / 'comparison.json').read_text())

    return run


def test_seeds_are_averaged_and_sorted_by_validation(compare, tmp_path):
    """Best validations 60 and 64: mean 62, standard deviation sqrt(8); the test does not decide the order."""
    seeds = [
        write_run(tmp_path / f'low_seed-{seed}', [50.0, best, 55.0], test=1, randomness=dict(seed=seed))
        for seed, best in ((0, 60.0), (1, 64.0))
    ]
    high = write_run(tmp_path / 'high', [70.0, 40.0], test=5, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    printed, content = compare(*seeds, high, '--baseline', 'low')
    assert list(content['groups']) == ['high', 'low']
    low = content['groups']['low']
    assert (low['val mIoU mean'], low['val mIoU std']) == (62.0, pytest.approx(8**0.5))
    assert content['groups']['high']['val mIoU std'] is None
    test = json.loads((high / 'test' / 'metrics.json').read_text())
    assert content['groups']['high']['test mIoU mean'] == pytest.approx(test['summary']['mIoU'])
    assert content['groups']['high']['test mean_tile_IoU mean'] == pytest.approx(test['mean_tile_IoU'])
    assert content['groups']['high']['test IoU/building mean'] == pytest.approx(test['per_class']['building']['IoU'])
    assert low['test mIoU mean'] > content['groups']['high']['test mIoU mean']
    table = (tmp_path / 'out' / 'comparison.md').read_text()
    assert '| high | 0 | 70.00 | +8.00 |' in table
    assert '| low | 0 1 | 62.00 ± 2.83 | +0.00 |' in table
    runs = pd.read_csv(tmp_path / 'out' / 'runs.csv')
    assert runs[['group', 'run', 'seed', 'best', 'trained']].to_numpy().tolist() == [
        ['high', 'high', 0, 1, 2], ['low', 'low_seed-0', 0, 2, 3], ['low', 'low_seed-1', 1, 2, 3],
    ]  # fmt: skip
    # The configs differ in two leaves.
    assert content['config_differences'] == {
        'optim_wrapper.optimizer.type': {'"SGD"': ['high'], '"AdamW"': ['low']},
        'optim_wrapper.optimizer.lr': {'0.1': ['high'], '0.001': ['low']},
    }
    assert 'config: optim_wrapper.optimizer.lr: 0.1 (high); 0.001 (low)' in printed
    assert 'NOT COMPARABLE' not in printed


def test_the_score_that_selected_the_checkpoints_decides(compare, tmp_path):
    """By the means over tiles, 100 - mIoU, the first epochs are best, and the run of lower mIoU."""
    hooks = dict(default_hooks=dict(checkpoint=dict(save_best='mean_tile_IoU')))
    low = write_run(tmp_path / 'low', [50.0, 60.0], **hooks)
    high = write_run(tmp_path / 'high', [70.0, 80.0], **hooks, model=dict(type='B'))
    printed, content = compare(low, high, '--baseline', 'high')
    assert 'at the best validation by mean_tile_IoU' in printed
    assert [(run['run'], run['best'], run['val mIoU']) for run in content['runs']] == [('low', 1, 50), ('high', 1, 70)]
    assert '| low | 0 | 50.00 | 58.00 | 70.00 | 50.00 | +20.00 |' in (tmp_path / 'out' / 'comparison.md').read_text()
    printed, content = compare(low, write_run(tmp_path / 'pooled', [55.0, 40.0], model=dict(type='C')))
    assert 'at the best validation by mIoU' in printed
    assert [run['run'] for run in content['runs']] == ['pooled', 'low']


def test_duplicate_seeds_are_not_averaged(compare, tmp_path):
    printed, content = compare(write_run(tmp_path / 'a', [50.0]), write_run(tmp_path / 'b', [60.0]))
    assert list(content['groups']) == ['b', 'a']
    assert 'duplicate seeds, not averaged: a, b' in printed


def test_machine_and_resume_make_no_other_group(compare, tmp_path):
    loader = dict(batch_size=4, num_workers=0, dataset=dict(type='InriaDataset', data_root='/elsewhere'))
    a = write_run(tmp_path / 'a_0', [50.0, 60.0])
    b = write_run(tmp_path / 'a_1', [50.0], randomness=dict(seed=1), train_dataloader=loader, work_dir='/b')
    # The second start names a checkpoint and another seed; the run has those of its first start.
    write_log(b, [70.0], '20260102_000000', first=2, resume=True, load_from='epoch_1.pth', randomness=dict(seed=9))
    _, content = compare(a, b)
    assert list(content['groups']) == ['a']
    assert content['groups']['a']['val mIoU mean'] == 65.0
    assert [run['seed'] for run in content['runs']] == [0, 1]
    assert content['config_differences'] == {}


@pytest.mark.parametrize(
    ('run', 'kept', 'note'),
    [
        (dict(test_read=2), True, 'its held-out test was read 2 times'),
        (dict(epoch=1, iter=10), True, r'tested at epoch 1 \(iteration 10\), best validation at 2'),
        (dict(prediction=dict(views='d4')), True, 'tested with views=d4, unlike its validation'),
        (dict(config_hash='other'), False, 'its test is left out'),
        (dict(split='val'), False, "of split 'val'"),
    ],
)
def test_unusual_tests_are_noted(compare, tmp_path, run, kept, note):
    printed, content = compare(write_run(tmp_path / 'a', [50.0, 60.0], test=1, run=run))
    assert re.search(f'a: .*{note}', printed)
    assert ('test mIoU' in content['runs'][0]) == kept


def test_tests_predicted_differently_are_not_averaged(compare, tmp_path):
    runs = [
        write_run(
            tmp_path / f'a{seed}', [50.0], test=1, randomness=dict(seed=seed), run=dict(prediction=dict(views=views))
        )
        for seed, views in enumerate(('none', 'd4'))
    ]
    printed, content = compare(*runs)
    assert 'a: tests were predicted in different ways' in printed
    assert 'test mIoU mean' not in content['groups']['a']


def test_scores_on_other_data_are_not_comparable(compare, tmp_path):
    a, b = write_run(tmp_path / 'a', [50.0]), write_run(tmp_path / 'b', [60.0], tiles=('austin1',))
    printed, content = compare(a, b)
    assert printed.startswith('NOT COMPARABLE')
    assert content['data_differences']['val']['images'] == {'2': ['a'], '1': ['b']}
    with pytest.raises(ConfigError, match='a was not validated on the 6 crops of 1024x1024 pixels'):
        compare(a, '--published')


def test_published_results_stand_beside_means_over_tiles(compare, tmp_path):
    a = write_run(tmp_path / 'a', [50.0], test=1)
    write_split(a / 'val', [f'austin{number}' for number in (1, 6, 11, 16, 21, 26)], 2, side=1024)
    compare(a, '--published')
    rows = (tmp_path / 'out' / 'comparison.md').read_text()
    scores = ['mIoU', 'mF1', 'OA', 'mean_tile_IoU']
    columns = [*(f'val {name}' for name in scores), *(f'test {name}' for name in [*scores, 'mean_tile_F1'])]
    assert f'| group | seeds | {" | ".join(columns)} |' in rows
    assert '| [published] U-Net from scratch | - | - | - | - | 73.5 | - | - | - | 75.7 | 86.1 |' in rows


def test_published_results_are_the_same_everywhere(monkeypatch):
    """The tool, the page of the protocol and the page of the configs."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    published = load_script(TOOL).PUBLISHED
    page = (REPO / 'docs' / 'few_shot.md').read_text()
    table = re.findall(r'^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$', page, re.MULTILINE)
    assert [tuple(map(float, row)) for row in table] == [
        (number, *scores) for number, (_, *scores) in enumerate(published, 1)
    ]
    page = (REPO / 'configs' / 'buildings' / 'README.md').read_text().split('## Published results')[1]
    table = re.findall(r'^\| (\d) \| .+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$', page, re.MULTILINE)
    assert [(int(number), *(round(100 * float(score), 4) for score in scores)) for number, *scores in table] == [
        (number, test_iou, test_f1, val_iou) for number, (_, val_iou, test_iou, test_f1) in enumerate(published, 1)
    ]


def test_incomplete_work_dirs_are_errors(compare, tmp_path):
    with pytest.raises(DataError, match=r'none: no log of a training run'):
        compare(tmp_path / 'none')
    with pytest.raises(ConfigError, match='--labels: expected 1 different names, got x, y'):
        compare(tmp_path / 'none', '--labels', 'x', 'y')


def test_pictures(compare, tmp_path):
    a, b = write_run(tmp_path / 'a', [50.0]), write_run(tmp_path / 'b', [60.0], model=dict(type='B'))
    compare(a, b)
    for name in ('curves.png', 'overlays.png'):
        assert min(cv2.imread(str(tmp_path / 'out' / name)).shape[:2]) > 300
    label = cv2.imread(str(b / 'val/labels/austin1.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(b / 'val/labels/austin1.png'), 1 - label)
    assert 'no overlays.png:' in compare(a, b)[0]
    assert not (tmp_path / 'out' / 'overlays.png').exists()


def test_found_false_and_missed_pixels_have_colours_of_their_own():
    label = np.array([[1, 1, 0, 0, 255]], np.uint8)
    pred = np.array([[1, 0, 1, 0, 1]], np.uint8)
    found, missed, false, right, ignored = paint_findings(np.zeros((1, 5, 3), np.uint8), pred, label)[0].tolist()
    assert (found[2], found[0] > 100, found[1] > 100) == (0, True, True)  # yellow
    assert (missed[0], missed[2] > 100) == (0, True)  # blue
    assert (false[0] > 100, false[1], false[2]) == (True, 0, 0)  # red
    assert right == ignored == [0, 0, 0]


def test_a_real_training_is_read(compare, tmp_path):
    """Trained, resumed and tested by the runner; the resumed start keeps the hash of the first."""
    cfg = tiny_config(tmp_path / 'run', epochs=1)
    build(cfg).train()
    free = dict(test_dataloader=dict(dataset=dict(free=True)))
    time.sleep(1)  # the folders of a work dir are named by the second of each start
    build(tiny_config(tmp_path / 'run', epochs=2, resume=True)).train()
    time.sleep(1)
    build(tiny_config(tmp_path / 'run', load_from=str(tmp_path / 'run/epoch_2.pth'), **free)).test()
    _, content = compare(tmp_path / 'run')
    (run,) = content['runs']
    assert (run['trained'], run['seed'], run['start']) == (2, 1, 'random')
    metrics = json.loads((tmp_path / 'run/test/metrics.json').read_text())
    assert run['test mIoU'] == pytest.approx(metrics['summary']['mIoU'])
