"""Charts: files with the expected content, and logs of runs that were resumed, cut off or empty."""

import json

import cv2
import numpy as np
import pytest

from lale_mmseg.evaluation.plots import plot_confusion, plot_curves, read_curves


def write_log(path, entries):
    path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return path


def train(step, loss=1.0, **more):
    return dict(lr=0.01, data_time=0.1, loss=loss, loss_ce=loss, time=0.2, iter=step, step=step, **more)


def val(step, score=50.0):
    return {'mIoU': score, 'mF1': score + 10, 'OA': score + 20, 'IoU/a': score, 'time': 0.1, 'step': step}


def count_color(path, rgb, tolerance=4):
    picture = cv2.imread(str(path))[..., ::-1].astype(int)
    return int((abs(picture - rgb).max(axis=-1) <= tolerance).sum())


def test_confusion_cells_have_the_colour_of_their_share(tmp_path):
    path = tmp_path / 'confusion.png'
    # Row percentages: 100 and 0; 0 and 100.
    plot_confusion(np.array([[7, 0], [0, 900]]), ('land', 'water'), path)
    dark, light = (8, 48, 107), (247, 251, 255)  # ends of the colour map
    grey = (242, 242, 242)
    cell = count_color(path, dark) / 2
    assert cell > 20_000
    assert count_color(path, light) == pytest.approx(2 * cell, rel=0.2)
    assert count_color(path, grey, 0) < cell / 10
    plot_confusion(np.array([[7, 0], [0, 0]]), ('land', 'water'), path)  # two cells of an empty row
    assert count_color(path, grey, 0) > 1.5 * cell


@pytest.mark.parametrize('count', [1, 40])
def test_confusion_of_many_classes(tmp_path, count):
    path = tmp_path / 'confusion.png'
    matrix = np.random.default_rng(0).integers(0, 1000, (count, count))
    plot_confusion(matrix, [f'class {i}' for i in range(count)], path, title='Test')
    height, width, _ = cv2.imread(str(path)).shape
    assert 300 < height < 2600
    assert 300 < width < 2600
    assert [entry.name for entry in tmp_path.iterdir()] == ['confusion.png']


def test_curves_show_loss_and_scores(tmp_path):
    entries = [train(i, 2 / i) for i in range(1, 41)] + [val(20, 40), val(40, 60)]
    path = tmp_path / 'curves.png'
    assert plot_curves([write_log(tmp_path / 'a.json', entries)], path)
    blue, orange, green = (0, 114, 178), (213, 94, 0), (0, 158, 115)
    assert min(count_color(path, color) for color in (blue, orange, green)) > 300
    both = cv2.imread(str(path)).shape[1]
    # Without validation the panel of scores is not drawn.
    assert plot_curves([write_log(tmp_path / 'a.json', entries[:40])], path)
    assert cv2.imread(str(path)).shape[1] < 0.6 * both
    assert count_color(path, orange) == 0
    assert count_color(path, blue) > 300


@pytest.mark.parametrize(
    'entries',
    [
        [val(0)],
        [train(1)],
        [train(i, float('nan') if i == 3 else 1.0) for i in range(1, 20)],
        [train(i, -1.0) for i in range(1, 20)],
        [{**train(1), 'lr': 0.0}],
    ],
)
def test_curves_of_short_and_strange_runs(tmp_path, entries):
    assert plot_curves([write_log(tmp_path / 'a.json', entries)], tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000


@pytest.mark.parametrize('text', ['', '{"step": 1, "loss"', '[]\n3\n', '{"time": 1, "step": 4}', '{"loss": 1}'])
def test_nothing_to_draw(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    assert not plot_curves([tmp_path / 'a.json', tmp_path / 'missing.json'], tmp_path / 'curves.png')
    assert not plot_curves([], tmp_path / 'curves.png')
    assert not (tmp_path / 'curves.png').exists()


def test_resumed_run_replaces_what_followed_its_checkpoint(tmp_path):
    first = write_log(tmp_path / '1.json', [*(train(i, 1.0) for i in (10, 20, 30, 40)), val(20, 30), val(40, 99)])
    # Stopped after 40, resumed at 20: logged at 25, 35.
    second = write_log(tmp_path / '2.json', [train(25, 0.5), train(35, 0.4), val(36, 44)])
    curves = read_curves([first, second])
    assert {step: entry['loss'] for step, entry in curves.train.items()} == {10: 1.0, 20: 1.0, 25: 0.5, 35: 0.4}
    assert {step: entry['mIoU'] for step, entry in curves.val.items()} == {20: 30, 36: 44}
    assert not curves.val_by_epoch


def test_resumed_run_by_epoch(tmp_path):
    first = [*(train(i, epoch=(i + 9) // 10) for i in range(1, 31)), val(1, 10), val(2, 20), val(3, 30)]
    second = [*(train(i, epoch=(i + 9) // 10) for i in range(21, 31)), val(3, 33)]
    curves = read_curves([write_log(tmp_path / '1.json', first), write_log(tmp_path / '2.json', second)])
    assert curves.val_by_epoch
    assert {step: entry['mIoU'] for step, entry in curves.val.items()} == {1: 10, 2: 20, 3: 33}
    assert len(curves.train) == 30


@pytest.mark.parametrize('hierarchy', [False, True])
def test_losses_of_training_and_validation_are_separate(tmp_path, hierarchy):
    entries = [train(step, 3.0 - step, epoch=(step + 1) // 2) for step in range(1, 5)]
    entries += [{**val(1), 'loss': 9.0}, {**val(2), 'loss': 8.0}, {**val(3), 'loss': 7.0}]
    if hierarchy:  # as mmengine's LogProcessor writes names with log_with_hierarchy=True
        own = ('step', 'epoch', 'iter')
        phases = ['train'] * 4 + ['val'] * 3
        entries = [
            {name if name in own else f'{phase}/{name}': value for name, value in entry.items()}
            for phase, entry in zip(phases, entries, strict=True)
        ]
    log = write_log(tmp_path / 'a.json', entries)
    curves = read_curves([log])
    assert {step: entry['loss'] for step, entry in curves.train.items()} == {1: 2.0, 2: 1.0, 3: 0.0, 4: -1.0}
    assert curves.val_by_epoch is False  # a third validation after two epochs
    curves = read_curves([write_log(tmp_path / 'b.json', entries[:-1])])
    assert curves.val_losses() == {2: 9.0, 4: 8.0}  # at the last iteration of its epoch
    assert plot_curves([tmp_path / 'b.json'], tmp_path / 'curves.png')
    assert count_color(tmp_path / 'curves.png', (204, 121, 167)) > 100
