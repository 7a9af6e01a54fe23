"""Small segmentors and batches for the tests of prediction."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from lale_mmseg.inference import Predictor


def segmentor(test_cfg: dict | None, padding: dict | None = None, **head: object) -> Any:
    """LALE-S1 of mmsegmentation's `EncoderDecoder`, always with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    preprocessor = dict(mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 55.0], bgr_to_rgb=True, pad_val=3)
    head = {'num_classes': 5, 'align_corners': False, **head}
    return MODELS.build(
        ConfigDict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='ChannelsLastDataPreProcessor', test_cfg=padding, **preprocessor),
            backbone=dict(type='LALE', arch='s1'),
            decode_head=dict(type='LALEHead', norm_cfg=dict(type='BN'), **head),
            test_cfg=test_cfg,
        )
    ).eval()


def predictor(padding: dict | None = None, head: dict | None = None, **test_cfg: object) -> Predictor:
    return Predictor(segmentor(test_cfg, padding, **(head or {})))


def data(*sizes: tuple[int, int], ori_shape: tuple[int, int] | None = None, **meta: object) -> dict:
    """Random images of (height, width), as a data loader gives them."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    samples = [
        SegDataSample(metainfo=dict(img_shape=size, ori_shape=ori_shape or size, pad_shape=size, **meta))
        for size in sizes
    ]
    return dict(inputs=images, data_samples=samples)
