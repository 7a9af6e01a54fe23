"""Mask2Former's head as the configs of LRFormer+ use it, in small."""

import copy

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from lale_mmseg.engine.config import complete_config
from lale_mmseg.errors import ConfigError
from tests.support import REPO

CONFIG = REPO / 'configs/lrformer_plus/lrformer-plus_t_1xb8-onecycle-400_palette-256x256.py'
#: Fewer layers, queries and points, and a small backbone.
SMALL = {
    'model.backbone': dict(_delete_=True, type='LALE', arch='s1'),
    'model.decode_head.in_channels': [32, 64, 128, 256],
    'model.decode_head.num_queries': 6,
    'model.decode_head.pixel_decoder.encoder.num_layers': 1,
    'model.decode_head.transformer_decoder.num_layers': 2,
    'model.decode_head.train_cfg.num_points': 64,
    'model.data_preprocessor.size': (64, 64),
}


def config(num_classes: int | None = 3) -> Config:
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({**copy.deepcopy(SMALL), 'model.decode_head.num_classes': num_classes})
    return cfg


@pytest.fixture
def model():
    return MODELS.build(config().model)


def batch(size: int = 64) -> dict:
    sample = SegDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size)))
    labels = torch.zeros(1, size, size, dtype=torch.int64)
    labels[:, : size // 2] = 2
    labels[:, :, :4] = 255
    sample.gt_sem_seg = PixelData(data=labels)
    return dict(inputs=[torch.randint(0, 255, (3, size, size)).float()], data_samples=[sample])


def loss_of(model, data: dict) -> torch.Tensor:
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    return sum(value for name, value in losses.items() if 'loss' in name)


def test_class_weights_follow_from_the_number_of_classes_of_the_data(chips_root):
    cfg = config(None)
    cfg.data_root = str(chips_root)
    cfg.model.decode_head.no_object_weight = 0.2
    classes = len((chips_root / 'classes.csv').read_text().splitlines()) - 1
    head = MODELS.build(complete_config(cfg).model).decode_head
    assert head.num_classes == head.out_channels == classes
    assert head.cls_embed.out_features == classes + 1
    assert head.loss_cls.class_weight == head.class_weight == [1.0] * classes + [0.2]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(num_classes=1), r'num_classes=1: expected at least 2 classes'),
        (dict(loss_cls=dict(class_weight=[1.0])), r'loss_cls\.class_weight follows from num_classes'),
    ],
)
def test_invalid_arguments(changes, message):
    cfg = config()
    cfg.merge_from_dict(dict(model=dict(decode_head=changes)))
    with pytest.raises(ConfigError, match=message):
        MODELS.build(cfg.model)


def test_every_parameter_gets_a_gradient_and_clipped_steps_learn(model):
    model.init_weights()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-4), clip_grad=dict(max_norm=0.01))
    data = batch()
    losses = []
    for _ in range(8):
        torch.manual_seed(0)  # the same points in each step
        loss = loss_of(model, data)
        wrapper.update_params(loss)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    # Only now: the deformable attention starts with weights of 0 between its queries and its offsets.
    model.zero_grad()
    loss_of(model, data).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_images_of_ignored_pixels_alone_give_finite_losses(model):
    data = batch()
    data['data_samples'][0].gt_sem_seg.data.fill_(255)
    loss = loss_of(model, data)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_bf16_autocast_on_a_cpu_trains_and_predicts_close_to_float32(model):
    model.init_weights()
    data = batch()
    torch.manual_seed(0)
    exact = loss_of(model, data)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = loss_of(model, data)
    rough.backward()
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    inputs = model.data_preprocessor(data, training=False)['inputs']
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64))
    with torch.no_grad():
        expected = model.inference(inputs, [meta])
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = model.inference(inputs, [meta])
    assert found.shape == (1, 3, 64, 64)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_windows_a_little_smaller_than_the_image_slide_too(model):
    """Windows of 62 and images of 64 pixels have maps of one size, so the maps alone do not tell them apart."""
    model.eval()
    model.test_cfg = ConfigDict(mode='slide', crop_size=(62, 62), stride=(31, 31))
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), padding_size=[0, 0, 0, 0])
    with torch.no_grad():
        assert model.slide_inference(torch.rand(1, 3, 64, 64), [meta]).shape == (1, 3, 64, 64)


def test_padded_images_get_scores_of_the_padded_size(model):
    model.eval()
    meta = dict(img_shape=(50, 61), ori_shape=(50, 61), pad_shape=(64, 64))
    with torch.no_grad():
        maps = model.extract_feat(torch.rand(1, 3, 64, 64))
        assert model.decode_head.predict(maps, [meta], None).shape == (1, 3, 64, 64)
        maps = model.extract_feat(torch.rand(1, 3, 50, 61))
        assert model.decode_head.predict(maps, [dict(img_shape=(50, 61, 3))], None).shape == (1, 3, 50, 61)
