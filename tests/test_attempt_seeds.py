"""Several seeds of one config as one attempt: means and spreads, names, what counts as a seed, curves and pictures."""

from pathlib import Path

import pytest

from lale_mmseg.evaluation import attempt_plots
from tests.attempts import TOOL, attempt, change, comparing, rows  # noqa: F401
from tests.test_attempt_recipes import start
from tests.test_docs import load_script


def seeds_of(folder: Path, name: str, best: dict[int, float], **options) -> list[Path]:
    """Work dirs of one config by seed, with their best validation IoU in the second of three epochs."""
    return [
        attempt(
            folder / f'{name}_seed-{seed}', [10.0, score, 20.0], extra=f'\nrandomness = dict(seed={seed})\n', **options
        )
        for seed, score in best.items()
    ]


def test_mean_and_spread_of_an_attempt(compare, tmp_path):
    """60, 64 and 71: mean 65, squares of the distances 25 + 1 + 36 = 62, so the standard deviation is sqrt(31)."""
    a = seeds_of(tmp_path, 'unet', {0: 60.0, 1: 64.0, 10: 71.0}, lr=0.001)
    b = seeds_of(tmp_path, 'lale', {0: 66.0, 1: 66.0, 10: 66.0}, lr=0.001, samples=300)
    said, content = compare(*a, *b, '--baseline', 'unet')
    assert [(row['label'], row['seeds']) for row in content['over_seeds']] == [
        ('lale', [0, 1, 10]),
        ('unet', [0, 1, 10]),
    ]
    unet = content['over_seeds'][1]
    assert unet['attempts'] == ['unet_seed-0', 'unet_seed-1', 'unet_seed-10']
    assert unet['val']['mIoU'] == dict(mean=65.0, std=pytest.approx(31**0.5))
    assert unet['test'] == dict(mIoU=None, mF1=None, OA=None)
    table = (tmp_path / 'out' / 'attempts.md').read_text()
    assert table.index('## Over seeds') < table.index('## Trainings')
    assert rows(table)['unet'][:5] == ['0 1 10', '65.00 ± 5.57', '73.00 ± 5.57', '85.00 ± 5.57', '+0.00']
    assert rows(table)['lale'][:5] == ['0 1 10', '66.00 ± 0.00', '74.00 ± 0.00', '86.00 ± 0.00', '+1.00']
    assert rows(table)['unet_seed-10'][4] == '+6.00'  # of a training over the mean of the baseline
    assert 'seeds: work dirs of one config; mean and standard deviation (n - 1) over them' in said
    # The seeds are no difference of recipes; the samples are.
    assert 'randomness.seed' not in said
    assert not [line for line in said.splitlines() if line.startswith('recipes agree')]
    assert 'samples_per_epoch' in said
    assert 'not trained with the same seeds' not in said


def test_the_test_of_an_attempt_needs_that_of_each_seed(compare, tmp_path):
    tested = seeds_of(tmp_path, 'a', {0: 50.0, 1: 60.0}, test=1, reads=1)
    partly = [
        *seeds_of(tmp_path, 'b', {0: 40.0}, samples=300, test=1),
        *seeds_of(tmp_path, 'b', {1: 40.0}, samples=300),
    ]
    said, content = compare(*tested, *partly)
    first, second = content['over_seeds']
    assert first['test']['mIoU']['std'] == 0
    assert first['test']['mIoU']['mean'] == pytest.approx(content['attempts'][0]['test']['mIoU'])
    assert second['test']['mIoU'] is None
    assert rows((tmp_path / 'out' / 'attempts.md').read_text())['b'][4] == '-'
    # A note that several trainings share is said once.
    assert said.count('no ledger of test reads') == 1


def test_tests_that_were_predicted_otherwise_have_no_mean(compare, tmp_path):
    a, b = seeds_of(tmp_path, 'a', {0: 50.0, 1: 60.0}, test=1, reads=2)
    run = dict(checkpoint='a.pth', epoch=1, iter=100, mode='whole')
    for folder in (a, b):
        change(folder / 'test' / 'metrics.json', run=dict(run, views='none'))
    said, content = compare(a, b)
    assert content['over_seeds'][0]['test']['mIoU'] is not None
    assert rows((tmp_path / 'out' / 'attempts.md').read_text())['a'][4].endswith('!')  # read twice
    change(b / 'test' / 'metrics.json', run=dict(run, views='d4'))
    said, content = compare(a, b)
    assert content['over_seeds'][0]['test']['mIoU'] is None
    assert content['over_seeds'][0]['val']['mIoU'] is not None
    assert 'a: no mean of the tests, which were not predicted in one way' in said


def test_unequal_seeds_are_said(compare, tmp_path):
    a = seeds_of(tmp_path, 'a', {0: 50.0, 1: 60.0})
    b = seeds_of(tmp_path, 'b', {0: 50.0}, samples=300)
    said, content = compare(*a, *b)
    assert 'attempts were not trained with the same seeds: means over fewer are less certain' in said
    assert 'seed: randomness.seed' in said
    assert content['over_seeds'][1]['val']['mIoU'] == dict(mean=50.0, std=None)
    assert '| b_seed-0 | 0 | 50.00 |' in (tmp_path / 'out' / 'attempts.md').read_text()


def test_what_is_no_second_seed(compare, tmp_path):
    """The same seed twice, and another recipe."""
    twice = [attempt(tmp_path / name, [50.0]) for name in ('a', 'a2')]
    other = attempt(tmp_path / 'a3', [50.0], lr=0.01, extra='\nrandomness = dict(seed=1)\n')
    said, content = compare(*twice, other)
    assert [row['attempts'] for row in content['over_seeds']] == [['a'], ['a2'], ['a3']]
    assert 'Over seeds' not in (tmp_path / 'out' / 'attempts.md').read_text()
    assert 'seeds: work dirs' not in said
    assert 'a, a2: one config and one seed, so no mean is taken over them' in said


def test_the_work_dir_and_a_resume_are_no_other_config(compare, tmp_path):
    a = attempt(tmp_path / 'x1', [50.0], extra='\nrandomness = dict(seed=1)\nwork_dir = "x1"\nresume = True\n')
    b = attempt(tmp_path / 'x2', [60.0], extra='\nrandomness = dict(seed=2)\nwork_dir = "x2"\n')
    _, content = compare(a, b)
    assert [(row['label'], row['seeds']) for row in content['over_seeds']] == [('x', [1, 2])]


@pytest.mark.parametrize(
    ('labels', 'name'),
    [
        ({1: 'unet_seed-1', 2: 'unet_seed-2'}, 'unet'),
        ({0: 'unet_c32_0', 1: 'unet_c32_1'}, 'unet_c32'),
        ({3: 'unet_c32_3', 32: 'unet_c32_32'}, 'unet_c32'),
        ({10: 'unet seed 10', 12: 'unet seed 12'}, 'unet'),
        ({0: 'seed-0_unet', 1: 'seed-1_unet'}, 'unet'),
        ({1: 'one', 2: 'two'}, 'one (mean)'),
        ({0: 'seed0', 1: 'seed1'}, 'seed0 (mean)'),
        ({1: 'other_1', 2: 'other_2'}, 'other_1 (mean)'),
    ],
)
def test_names(compare, tmp_path, labels, name):
    """A mean has no name of a training."""
    folders = [
        attempt(tmp_path / label, [50.0], extra=f'\nrandomness = dict(seed={seed})\n') for seed, label in labels.items()
    ]
    alone = attempt(tmp_path / 'other', [40.0], lr=0.5)
    _, content = compare(*folders, alone)
    assert [row['label'] for row in content['over_seeds']] == [name, 'other']


def test_the_machine_is_no_other_attempt_and_what_it_started_from_is(compare, tmp_path):
    machine = "\ntrain_dataloader['num_workers'] = {}\ndata_root = '/data{}'\nrandomness = dict(seed={})\n"
    a, b = (attempt(tmp_path / f'a{seed}', [50.0], extra=machine.format(seed, seed, seed)) for seed in (1, 2))
    c = attempt(tmp_path / 'a3', [50.0], extra="\nload_from = 'coco.pth'\nrandomness = dict(seed=3)\n")
    _, content = compare(a, b, c)
    assert [(row['label'], row['seeds']) for row in content['over_seeds']] == [('a', [1, 2]), ('a3', [3])]


def test_a_resumed_training_has_the_seed_of_its_first_start(compare, tmp_path):
    folder, other = (attempt(tmp_path / name, [50.0]) for name in ('a-1', 'a-2'))
    for name, first in ((folder, 1), (other, 2)):
        start(name, '20260101_000000', trained=True, extra=f'randomness = dict(seed={first})\n')
    start(folder, '20260102_000000', trained=True, epoch=2, extra="randomness = dict(seed=0)\nresume = 'auto'\n")
    _, content = compare(folder, other)
    assert [(row['label'], row['seeds']) for row in content['over_seeds']] == [('a', [1, 2])]


def test_pictures_are_of_the_first_seed_and_curves_share_a_colour(compare, tmp_path, monkeypatch):
    drawn, figures = {}, []
    module = load_script(TOOL)
    monkeypatch.setattr(
        module, 'draw_predictions', lambda rows, labels, _, title: drawn.update(labels=labels, title=title)
    )
    monkeypatch.setattr(attempt_plots, 'save_figure', lambda figure, _: figures.append(figure))
    a = seeds_of(tmp_path, 'a', {3: 60.0, 4: 70.0})
    b = attempt(tmp_path / 'b', [50.0], samples=300)
    monkeypatch.setattr('sys.argv', [TOOL, *map(str, [*a, b]), '--out', str(tmp_path / 'out')])
    module.main()
    assert drawn['labels'] == ['a', 'b']
    assert drawn['title'].startswith('first seed of each attempt, last validation of each attempt')
    axes = figures[0].axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert [list(line.get_ydata()) for line in lines] == [[10.0, 70.0, 20.0], [10.0, 60.0, 20.0]]
    assert lines[0].get_color() == lines[1].get_color() == attempt_plots.COLORS[0]
    entries = axes.get_legend_handles_labels()[1]
    assert entries == ['a: 65.0 ± 7.1, 2 seeds', 'b: 50.0 at 1']
