"""LRFormer+ with Mask2Former's head trains on two CPU processes, and both test alike, without compiled operations."""

import json
import math

import pytest

from tests.support import run_tool


@pytest.mark.slow
def test_two_cpu_ranks_train_and_test_lrformer_plus(toy_root, tmp_path):
    config = 'configs/lrformer_plus/lrformer-plus_t_1xb16-160k_aras400k-256x256.py'
    data = [f'data_root={toy_root}', 'test_dataloader.num_workers=0', 'test_dataloader.batch_size=2']
    for phase in ('train', 'val'):
        data += [f'{phase}_dataloader.num_workers=0', f'{phase}_dataloader.persistent_workers=False']
    head = 'model.decode_head'
    small = [
        'model.data_preprocessor.size=(64,64)',
        f'{head}.num_queries=6',
        f'{head}.pixel_decoder.encoder.num_layers=1',
        f'{head}.transformer_decoder.num_layers=2',
        f'{head}.train_cfg.num_points=64',
    ]
    short = [
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2',
        'default_hooks.logger.interval=1',
        'train_dataloader.batch_size=2',
    ]
    work_dir = tmp_path / 'work'
    run_tool(
        'bash', 'tools/dist_train.sh', config, 2, '--work-dir', work_dir, '--cfg-options', *data, *small, *short
    )  # fmt: skip
    losses = [json.loads(line) for path in work_dir.rglob('scalars.json') for line in path.read_text().splitlines()]
    losses = [line for line in losses if 'loss' in line]
    assert [line['step'] for line in losses] == [1, 2]
    assert all(math.isfinite(value) for line in losses for value in line.values())
    assert {name for name in losses[0] if name.endswith('loss_cls')} == {
        f'decode.{layer}loss_cls' for layer in ('', 'd0.', 'd1.')
    }
    checkpoint = work_dir / 'iter_2.pth'
    for processes in (1, 2):
        run_tool(
            'bash', 'tools/dist_test.sh', config, checkpoint, processes, '--work-dir', tmp_path / f'test{processes}',
            '--cfg-options', *data, *small,
        )  # fmt: skip
    scores = [(tmp_path / f'test{processes}/test/confusion_matrix.csv').read_text() for processes in (1, 2)]
    assert scores[0] == scores[1]
    image = next((toy_root / 'test/images').iterdir())
    run_tool('python', 'tools/predict.py', checkpoint, image, '--out-dir', tmp_path / 'predicted')
    assert any((tmp_path / 'predicted').rglob('*.png'))
