"""The tools as a user runs them, each in its own process, on a toy set of 64x64 pixels."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config

from lale_mmseg.metainfo.palette import Palette
from tests.support import REPO, run_tool

CONFIG = 'configs/lale/lale_s1_1xb8-onecycle-400_aras400k-toy-256x256.py'


def short(root: Path, iterations: int = 4) -> list[str]:
    """Overrides that make a run of a few seconds."""
    return [
        f'data_root={root}',
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations}',
        f'param_scheduler.0.total_steps={iterations}',
        'default_hooks.checkpoint.interval=2',
        'default_hooks.logger.interval=1',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0',
        'test_dataloader.batch_size=1',
    ]


def train(root: Path, work_dir: Path, *options: str, iterations: int = 4, check: bool = True):
    overrides = ['--cfg-options', *short(root, iterations)]
    return run_tool('python', 'tools/train.py', CONFIG, '--work-dir', work_dir, *options, *overrides, check=check)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


@pytest.fixture(scope='module')
def trained(toy_root, tmp_path_factory) -> Path:
    """A work dir after four iterations."""
    work_dir = tmp_path_factory.mktemp('trained')
    done = train(toy_root, work_dir)
    (work_dir / 'screen.txt').write_text(done.stdout + done.stderr)
    return work_dir


@pytest.fixture(scope='module')
def tested(toy_root, trained, tmp_path_factory) -> Path:
    """A work dir after testing that run, with predictions and overlays of all images."""
    work_dir = tmp_path_factory.mktemp('tested')
    run_tool(
        'python', 'tools/test.py', CONFIG, trained / 'iter_4.pth', '--work-dir', work_dir,
        '--out', work_dir / 'index', '--show-dir', work_dir / 'shown', '--cfg-options', *short(toy_root),
    )  # fmt: skip
    return work_dir


def test_training_leaves_plain_checkpoints_scores_and_pictures(trained):
    assert {path.name for path in trained.glob('*.pth')} == {'iter_2.pth', 'iter_4.pth', 'best_mF1_iter_4.pth'}
    checkpoint = torch.load(trained / 'iter_4.pth', weights_only=True)
    description = json.loads(checkpoint['lale_mmseg'])
    assert description['classes'][4] == 'built-up'
    assert description['palette'][6] == [0, 0, 255]
    assert description['config']['model']['decode_head']['num_classes'] == 7
    assert checkpoint['meta']['iter'] == 4
    for picture in ('curves.png', 'val/confusion_matrix.png'):
        assert cv2.imread(str(trained / picture)) is not None, picture
    assert json.loads((trained / 'val/metrics.json').read_text())['num_images'] == 5
    assert len(list((trained / 'val/overlays').glob('*.png'))) == 1  # one batch of five: its first image
    assert list(trained.rglob('events.out.tfevents*')), 'TensorBoard is on by default'
    assert not list(trained.rglob('*.part'))


def test_a_start_fits_on_a_screen_and_the_log_has_the_rest(trained):
    screen = (trained / 'screen.txt').read_text()
    (log,) = trained.glob('*/*.log')
    for part in ('System environment', 'Hooks will be executed', 'optim_wrapper = dict('):
        assert part in log.read_text()
        assert part not in screen
    assert len(screen.splitlines()) < 45
    assert len(re.findall(r'mIoU\W', screen)) == 1


def test_samples_are_drawn_as_they_are_trained_on(toy_root, tmp_path):
    browse = ['python', 'tools/analysis/browse_dataset.py', CONFIG, '--number', 2, '--out-dir', tmp_path]
    run_tool(*browse, '--cfg-options', *short(toy_root))
    pictures = [cv2.imread(str(path)) for path in sorted(tmp_path.glob('*.png'))]
    assert len(pictures) == 2
    assert all(min(picture.shape[:2]) >= 64 for picture in pictures)


@pytest.mark.slow
def test_a_config_trains_and_tests_under_the_runner_of_mmengine(chips_root, tmp_path):
    """Without `runner_type`, and with what our runner fills in written out."""
    config = tmp_path / 'config.py'
    cfg = Config.fromfile(REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py')
    cfg.pop('runner_type')
    cfg.merge_from_dict(
        {f'{phase}_dataloader.dataset.data_root': str(chips_root) for phase in ('train', 'val', 'test')}
    )
    cfg.model.decode_head.num_classes = len(Palette.from_csv(chips_root / 'classes.csv').classes)
    cfg.merge_from_dict({'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'param_scheduler.0.total_steps': 2})
    cfg.dump(config)
    run_tool('python', 'tools/train.py', config, '--work-dir', tmp_path / 'run')
    (best,) = (tmp_path / 'run').glob('best_*.pth')
    done = run_tool('python', 'tools/test.py', config, best, '--work-dir', tmp_path / 'test')
    assert 'mIoU' in done.stdout + done.stderr


def test_testing_writes_scores_predictions_and_overlays_that_agree(tested, toy_root):
    metrics = json.loads((tested / 'test/metrics.json').read_text())
    assert metrics['num_images'] == 5
    matrix = np.zeros((7, 7), np.int64)
    from lale_mmseg.metainfo import Palette, aras400k

    palette = Palette(aras400k.CLASSES, aras400k.COLORS)
    for mask in sorted((toy_root / 'test/masks').glob('*.png')):
        label = palette.decode(cv2.imread(str(mask))[..., ::-1])
        pred = cv2.imread(str(tested / 'index' / mask.name), cv2.IMREAD_UNCHANGED)
        assert pred.dtype == np.uint8
        assert pred.shape == label.shape
        np.add.at(matrix, (label.ravel(), pred.ravel()), 1)
        assert cv2.imread(str(tested / 'shown' / mask.name)) is not None
    rows = (tested / 'test/confusion_matrix.csv').read_text().splitlines()[1:]
    assert [[int(value) for value in row.split(',')[1:]] for row in rows] == matrix.tolist()
    overall = np.trace(matrix) / matrix.sum() * 100
    assert metrics['summary']['OA'] == pytest.approx(overall)


def test_two_cpu_ranks_score_exactly_as_one_process(tested, trained, toy_root, tmp_path):
    run_tool(
        'bash', 'tools/dist_test.sh', CONFIG, trained / 'iter_4.pth', 2, '--work-dir', tmp_path,
        '--cfg-options', *short(toy_root),
    )  # fmt: skip
    assert (tmp_path / 'test/confusion_matrix.csv').read_text() == (tested / 'test/confusion_matrix.csv').read_text()
    assert json.loads((tmp_path / 'test/metrics.json').read_text())['num_images'] == 5


@pytest.mark.slow
def test_two_cpu_ranks_train_and_validate_what_they_save(toy_root, tmp_path):
    run_tool(
        'bash', 'tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path, '--cfg-options', *short(toy_root),
    )  # fmt: skip
    in_training = json.loads((tmp_path / 'val/metrics.json').read_text())
    run_tool(
        'python', 'tools/test.py', CONFIG, tmp_path / 'iter_4.pth', '--work-dir', tmp_path / 'again',
        '--cfg-options', *short(toy_root), 'test_dataloader.dataset.split=val', 'test_dataloader.batch_size=8',
    )  # fmt: skip
    again = json.loads((tmp_path / 'again/test/metrics.json').read_text())
    # Other batch sizes may round a pixel differently; other BatchNorm statistics would change thousands.
    assert again['summary']['OA'] == pytest.approx(in_training['summary']['OA'], abs=0.05)


@pytest.mark.slow
def test_custom_data_train_test_and_predict_by_the_palette_config(chips_root, tmp_path):
    config = 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'
    overrides = ['--cfg-options', *short(chips_root, 2)]
    run_tool('python', 'tools/train.py', config, '--work-dir', tmp_path, *overrides)
    run_tool('python', 'tools/test.py', config, tmp_path / 'iter_2.pth', '--work-dir', tmp_path, *overrides)
    metrics = json.loads((tmp_path / 'test/metrics.json').read_text())
    table = [row.split(',')[1] for row in (chips_root / 'classes.csv').read_text().split()[1:]]
    assert metrics['classes'] == table
    folder = next(path for path in (chips_root / 'images', chips_root / 'test/images') if path.is_dir())
    image = sorted(path for path in folder.iterdir() if path.suffix in ('.jpg', '.png'))[0]
    run_tool('python', 'tools/predict.py', tmp_path / 'iter_2.pth', image, '--out-dir', tmp_path / 'out')
    index = cv2.imread(str(tmp_path / 'out' / f'{image.stem}.png'), cv2.IMREAD_UNCHANGED)
    assert index.shape == cv2.imread(str(image)).shape[:2]


@pytest.mark.slow
def test_a_resumed_run_continues_where_it_stopped(toy_root, trained, tmp_path):
    (tmp_path / 'iter_2.pth').write_bytes((trained / 'iter_2.pth').read_bytes())
    (tmp_path / 'iter_3.pth').write_bytes(b'cut off')
    (tmp_path / 'last_checkpoint').write_text('/moved/away/iter_2.pth')
    done = train(toy_root, tmp_path, '--resume')
    assert 'passed over when resuming' in done.stdout + done.stderr
    assert 'resumed epoch: 0, iter: 2' in done.stdout + done.stderr
    resumed, straight = (torch.load(path / 'iter_4.pth', weights_only=True) for path in (tmp_path, trained))
    assert resumed['meta']['iter'] == straight['meta']['iter'] == 4
    states = [checkpoint['optimizer']['state'][0] for checkpoint in (resumed, straight)]
    assert [int(state['step']) for state in states] == [4, 4]  # two of them before the stop
    for key in ('_global_step', '_last_value'):
        assert resumed['param_schedulers'][0][key] == straight['param_schedulers'][0][key]
    assert (tmp_path / 'curves.png').is_file()


@pytest.mark.slow
def test_the_first_start_of_an_always_resumed_job_begins_from_load_from(toy_root, trained, tmp_path):
    done = run_tool(
        'python', 'tools/train.py', CONFIG, '--work-dir', tmp_path, '--resume',
        '--cfg-options', *short(toy_root, 2), f'load_from={trained / "iter_4.pth"}',
    )  # fmt: skip
    assert 'nothing to resume' in done.stdout + done.stderr
    assert f'loaded {trained / "iter_4.pth"}' in done.stdout + done.stderr


def test_only_the_main_process_touches_checkpoint_files(toy_root, tmp_path, monkeypatch):
    """Rank 1 must not touch the files that rank 0 is writing."""
    from mmengine.dist import utils

    from lale_mmseg.engine.runner import LALERunner

    half_written = tmp_path / '.iter_2.pth.part'
    half_written.write_bytes(b'half')
    monkeypatch.setattr(utils, 'is_main_process', lambda group=None: False)
    LALERunner.save_checkpoint(object(), str(tmp_path), 'iter_2.pth')
    assert half_written.read_bytes() == b'half'
    assert not (tmp_path / 'iter_2.pth').exists()


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights_and_another_one_does_not(toy_root, trained, tmp_path):
    train(toy_root, tmp_path / 'same')
    train(toy_root, tmp_path / 'other', '--seed', '7')
    expected = weights(trained / 'iter_4.pth')
    same, other = weights(tmp_path / 'same/iter_4.pth'), weights(tmp_path / 'other/iter_4.pth')
    assert all(torch.equal(expected[name], same[name]) for name in expected)
    assert not all(torch.equal(expected[name], other[name]) for name in expected)


@pytest.mark.slow
def test_compiled_training_in_mixed_precision_keeps_the_names_of_weights(toy_root, trained, tmp_path):
    train(toy_root, tmp_path, '--compile', '--amp', 'bf16', iterations=2)
    found = weights(tmp_path / 'iter_2.pth')
    assert found.keys() == weights(trained / 'iter_4.pth').keys()
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.slow
def test_the_plateau_schedule_of_the_paper_runs_by_epochs(toy_root, tmp_path):
    run_tool(
        'python', 'tools/train.py', 'configs/lale/lale_s1_1xb64-plateau-20e_aras400k-256x256.py',
        '--work-dir', tmp_path, '--cfg-options', f'data_root={toy_root}', 'train_cfg.max_epochs=2',
        'train_dataloader.dataset.parts.synthetic=1.0',
        'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
    )  # fmt: skip
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 6  # 8 real and 4 synthetic pairs in batches of 4, twice


def test_test_time_augmentation_averages_views(toy_root, trained, tmp_path):
    run_tool(
        'python', 'tools/test.py', CONFIG, trained / 'iter_4.pth', '--work-dir', tmp_path, '--tta',
        '--out', tmp_path / 'index', '--cfg-options', *short(toy_root), 'tta_cfg.views=flips',
    )  # fmt: skip
    from lale_mmseg.inference import Predictor

    predictor = Predictor.from_checkpoint(trained / 'iter_4.pth')
    path = next((toy_root / 'test/images').glob('*.png'))
    image = cv2.imread(str(path))

    def probabilities(image):
        with torch.no_grad():
            return predictor.logits(image).softmax(0)

    views = [probabilities(image), probabilities(image[:, ::-1]).flip(2), probabilities(image[::-1]).flip(1)]
    expected = sum(views).argmax(0).numpy()
    found = cv2.imread(str(tmp_path / 'index' / path.name), cv2.IMREAD_UNCHANGED)
    assert (found == expected).mean() > 0.999


def test_prediction_needs_the_checkpoint_only(trained, tested, toy_root, tmp_path):
    images = sorted((toy_root / 'test/images').glob('*.png'))
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG cut off')
    done = run_tool(
        'python', REPO / 'tools/predict.py', trained / 'iter_4.pth', *images, 'broken.png', '--out-dir', 'out',
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert 'error: broken.png: not a readable image' in done.stderr
    assert '5 of 6 images predicted' in done.stdout
    for image in images:
        index = cv2.imread(str(tmp_path / 'out' / image.name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(index, cv2.imread(str(tested / 'index' / image.name), cv2.IMREAD_UNCHANGED))
        assert cv2.imread(str(tmp_path / 'out' / f'{image.stem}_overlay.png')).shape[1] > 2 * 256  # enlarged to be seen


def test_an_image_of_other_bands_is_reported_and_the_others_are_predicted(trained, toy_root, tmp_path):
    (tmp_path / 'in').mkdir()
    for path in (toy_root / 'test/images').glob('*.png'):
        (tmp_path / 'in' / path.name).write_bytes(path.read_bytes())
    profile = dict(driver='GTiff', dtype='uint8', count=4, height=64, width=64)
    with rasterio.open(tmp_path / 'in' / '0.tif', 'w', **profile) as dataset:
        dataset.write(np.zeros((4, 64, 64), np.uint8))
    done = run_tool(
        'python', 'tools/predict.py', trained / 'iter_4.pth', tmp_path / 'in', '--out-dir', tmp_path / 'out',
        '--batch-size', 4, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert '0.tif: 4 bands, but data_preprocessor.mean has 3 values' in done.stderr
    assert '5 of 6 images predicted' in done.stdout
    assert len(list((tmp_path / 'out').glob('*_overlay.png'))) == 5


def test_prediction_never_overwrites_its_images(trained, toy_root, tmp_path):
    image = next((toy_root / 'test/images').glob('*.png'))
    copy = tmp_path / image.name
    copy.write_bytes(image.read_bytes())
    done = run_tool('python', 'tools/predict.py', trained / 'iter_4.pth', copy, '--out-dir', tmp_path, check=False)
    assert done.returncode == 2
    assert 'is one of the images and would be overwritten' in done.stderr
    assert copy.read_bytes() == image.read_bytes()


def test_a_georeferenced_image_gets_a_georeferenced_result(trained, tmp_path):
    transform = rasterio.transform.from_origin(500000, 4200000, 10, 10)
    profile = dict(driver='GTiff', dtype='uint8', count=3, height=40, width=70, crs='EPSG:32636', transform=transform)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 70)).astype(np.uint8)
    with rasterio.open(tmp_path / 'scene.tif', 'w', **profile) as dataset:
        dataset.write(pixels)
    scene, out = tmp_path / 'scene.tif', tmp_path / 'out'
    run_tool('python', 'tools/predict.py', trained / 'iter_4.pth', scene, '--out-dir', out)
    with rasterio.open(out / 'scene.tif') as result:
        assert (result.crs, result.transform) == (rasterio.CRS.from_epsg(32636), transform)
        assert result.colormap(1)[6][:3] == (0, 0, 255)
        index = result.read(1)
    assert np.array_equal(index, cv2.imread(str(out / 'scene.png'), cv2.IMREAD_UNCHANGED))


ERRORS = [
    (['configs/none.py'], [], r'error: configs/none.py: no such config file'),
    ([CONFIG], ['data_root=/nowhere'], "error: data_root '/nowhere' does not exist: make it with"),
    ([CONFIG], ['data_rot=/nowhere'], "error: unknown config field 'data_rot'; did you mean 'data_root'?"),
    ([CONFIG], ['model.decode_head.num_classes=6'], 'error: model.decode_head.num_classes is 6, but train_dataloader'),
    ([CONFIG], ['model.backbone.arch=s9'], "error: arch='s9': unknown size; expected one of s1, s2, s3, s4"),
    ([CONFIG, '--resume', '/no/such.pth'], [], 'error: /no/such.pth: no such checkpoint'),
]


@pytest.mark.parametrize(('arguments', 'overrides', 'message'), ERRORS)
def test_bad_input_is_one_line_and_status_2(arguments, overrides, message, toy_root, tmp_path):
    options = ['--cfg-options', *short(toy_root), *overrides]
    done = run_tool('python', 'tools/train.py', *arguments, '--work-dir', tmp_path, *options, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith('error:')]) == 1


def test_an_unknown_colour_in_a_data_worker_is_one_line(toy_root, tmp_path):
    from data_prep.make_toy import make_toy

    make_toy(tmp_path / 'data', dict(train=2, val=1), size=64)
    for path in (tmp_path / 'data/train/masks').glob('*.png'):
        mask = cv2.imread(str(path))
        mask[10, 20] = (9, 8, 7)
        cv2.imwrite(str(path), mask)
    options = [*short(tmp_path / 'data'), 'train_dataloader.num_workers=1']
    done = run_tool(
        'python', 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'wd', '--cfg-options', *options, check=False
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith('error:')]
    assert len(errors) == 1
    assert 'colour (7, 8, 9) at row 10, column 20 is not in the palette' in errors[0]


def test_a_checkpoint_of_another_architecture_is_one_line(trained, toy_root, tmp_path):
    done = run_tool(
        'python', 'tools/test.py', CONFIG, trained / 'iter_4.pth', '--work-dir', tmp_path,
        '--cfg-options', *short(toy_root), 'model.backbone.arch=s2', check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'does not fit this model' in done.stderr
    assert 'not in the checkpoint: backbone.stages.0.1.norm1.weight' in done.stderr


def test_predictions_without_our_metric_are_refused(trained, toy_root, tmp_path):
    done = run_tool(
        'python', 'tools/test.py', CONFIG, trained / 'iter_4.pth', '--work-dir', tmp_path, '--out', tmp_path / 'index',
        '--cfg-options', *short(toy_root), 'test_evaluator.type=IoUMetric', check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'error: --out: test_evaluator has no SegmentationMetric, found IoUMetric' in done.stderr


def test_complexity_prints_the_published_figures(tmp_path):
    config = 'configs/lale/lale_s1_1xb64-plateau-20e_aras400k-256x256.py'
    options = ['--json', tmp_path / 'out.json', '--cfg-options', 'model.backbone.arch=s2']
    done = run_tool('python', 'tools/analysis/complexity.py', config, *options)
    assert 'parameters  2,612,205\nbuffers     257\nsize        9.97 MiB (float32)\nGMACs       0.767\n' in done.stdout
    assert json.loads((tmp_path / 'out.json').read_text())['parameters'] == 2612205


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_launch_scripts_print_their_usage(script):
    done = run_tool('bash', f'tools/{script}', check=False)
    assert done.returncode == 2
    assert f'usage: bash tools/{script}' in done.stderr


def test_slurm_scripts_request_the_resources_that_were_set(tmp_path):
    fake = tmp_path / 'srun'
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    import os

    env = dict(PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', GPUS='4', GPUS_PER_NODE='8', SRUN_ARGS='--time 60')
    done = run_tool('bash', 'tools/slurm_train.sh', 'gpu', 'job', CONFIG, '--amp', 'bf16', env=env)
    arguments = done.stdout.split()
    for expected in ('--ntasks=4', '--gres=gpu:4', '--time', '--launcher', 'slurm', CONFIG, '--amp'):
        assert expected in arguments


def test_a_wrong_process_count_is_named():
    done = run_tool('bash', 'tools/dist_train.sh', CONFIG, 'two', check=False)
    assert done.returncode == 2
    assert "GPUS is 'two'" in done.stderr
