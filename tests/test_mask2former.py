"""Mask2Former of mmsegmentation trains and predicts without compiled operations of mmcv."""

import json
import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from tests.support import run_tool

WIDTH = 32


def mask2former(num_classes: int) -> ConfigDict:
    """A Mask2Former of two decoder layers over the maps of LALE-S1."""
    ffn = dict(embed_dims=WIDTH, feedforward_channels=2 * WIDTH, num_fcs=2, act_cfg=dict(type='ReLU', inplace=True))
    encoder = dict(
        num_layers=1,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=WIDTH, num_heads=4, num_levels=3, num_points=4, batch_first=True),
            ffn_cfg=ffn,
        ),
        init_cfg=None,
    )
    heads = dict(embed_dims=WIDTH, num_heads=4, dropout=0.0, batch_first=True)
    position = dict(num_feats=WIDTH // 2, normalize=True)
    costs = [
        dict(type='mmdet.ClassificationCost', weight=2.0),
        dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
        dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
    ]
    head = dict(
        type='Mask2FormerHead',
        in_channels=[32, 64, 128, 256],
        strides=[4, 8, 16, 32],
        feat_channels=WIDTH,
        out_channels=WIDTH,
        num_classes=num_classes,
        num_queries=10,
        num_transformer_feat_level=3,
        align_corners=False,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=8),
            act_cfg=dict(type='ReLU'),
            encoder=encoder,
            positional_encoding=position,
        ),
        positional_encoding=position,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=2,
            layer_cfg=dict(self_attn_cfg=heads, cross_attn_cfg=heads, ffn_cfg=ffn),
            init_cfg=None,
        ),
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=2.0,
            reduction='mean',
            class_weight=[1.0] * num_classes + [0.1],
        ),
        loss_mask=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, reduction='mean', loss_weight=5.0),
        loss_dice=dict(
            type='mmdet.DiceLoss',
            use_sigmoid=True,
            activate=True,
            reduction='mean',
            naive_dice=True,
            eps=1.0,
            loss_weight=5.0,
        ),
        train_cfg=dict(
            num_points=128,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(type='mmdet.HungarianAssigner', match_costs=costs),
            sampler=dict(type='mmdet.MaskPseudoSampler'),
        ),
    )
    return ConfigDict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='ChannelsLastDataPreProcessor', mean=[0.0] * 3, std=[1.0] * 3, size=(64, 64)),
        backbone=dict(type='LALE', arch='s1'),
        decode_head=head,
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


@pytest.mark.slow
def test_one_step_lowers_nothing_to_nan_and_prediction_has_every_pixel():
    model = MODELS.build(mask2former(3))
    model.init_weights()
    sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 64, 64)))
    batch = dict(inputs=[torch.rand(3, 64, 64)], data_samples=[sample])
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    total = sum(value for name, value in losses.items() if 'loss' in name)
    total.backward()
    assert total.isfinite()
    offsets = model.decode_head.pixel_decoder.encoder.layers[0].self_attn.sampling_offsets.weight
    assert offsets.grad is not None
    assert offsets.grad.abs().sum() > 0  # deformable attention took part, in its grid_sample form
    model.eval()
    with torch.no_grad():
        result = model(**model.data_preprocessor(batch, training=False), mode='predict')[0]
    assert result.pred_sem_seg.data.shape == (1, 64, 64)


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
