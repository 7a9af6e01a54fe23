"""How many parameters each network has and trains with two classes, counted by hand where that can be done."""

import copy
import re

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from tests.support import REPO


def conv_norm(inputs: int, outputs: int, kernel: int = 3) -> int:
    """A convolution without bias, and a norm with scale and bias."""
    return kernel * kernel * inputs * outputs + 2 * outputs


def double(inputs: int, outputs: int) -> int:
    """Two 3x3 convolutions with norms."""
    return conv_norm(inputs, outputs) + conv_norm(outputs, outputs)


#: Five levels of 32 to 512; each decoder stage narrows by 1x1, then mixes with the skip; a classifier of 32 * 2 + 2.
UNET = sum(double(a, b) for a, b in [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512)])
UNET += sum(conv_norm(2 * b, b, 1) + double(2 * b, b) for b in (256, 128, 64, 32)) + 66
#: Stem, then 3, 4, 6 and 3 blocks; the first block of the last three stages has a 1x1 shortcut.
RESNET34 = conv_norm(3, 64, 7) + 3 * double(64, 64)
RESNET34 += sum(
    double(a, b) + conv_norm(a, b, 1) + n * double(b, b) for a, b, n in [(64, 128, 3), (128, 256, 5), (256, 512, 2)]
)
#: Blocks that take the map from below and the skip; the last one has none; a 3x3 classifier with a bias.
SMP_UNET = sum(double(a + skip, b) for a, skip, b in [
    (512, 256, 256), (256, 128, 128), (128, 64, 64), (64, 64, 32), (32, 0, 16)
]) + 9 * 16 * 2 + 2  # fmt: skip
#: ASPP: 1x1, three depthwise 3x3 with 1x1, pooling with 1x1, projection; then a separable convolution; the projection
#: of stride 4 to 48; a separable convolution over both; a 1x1 classifier.
DEEPLAB = conv_norm(512, 256, 1) + 3 * (9 * 512 + conv_norm(512, 256, 1)) + conv_norm(512, 256, 1)
DEEPLAB += conv_norm(5 * 256, 256, 1) + 9 * 256 + conv_norm(256, 256, 1) + conv_norm(64, 48, 1)
DEEPLAB += 9 * 304 + conv_norm(304, 256, 1) + 256 * 2 + 2
#: A block of width 768: two norms, qkv and its output, the MLP of four times the width, and two tables of relative
#: positions of heads of 64: 2 * 64 - 1 of them in the four global blocks, 2 * 14 - 1 in the others.
BLOCK = 2 * 2 * 768 + 768 * 3 * 768 + 3 * 768 + 768 * 768 + 768 + 2 * 4 * 768 * 768 + 5 * 768
SAM = 64 * 64 * 768 + 16 * 16 * 3 * 768 + 768 + 12 * BLOCK + 2 * 64 * (4 * 127 + 8 * 27)
SAM += conv_norm(768, 256, 1) + conv_norm(256, 256)
#: Of each block's qkv: A of 4 x 768 and B of 2304 x 4.
LORA = 12 * (4 * 768 + 2304 * 4)
SAM_CONV, SAM_UNET = 1_757_186, 6_298_402  # by hand in test_sam_heads.py

SIZES = {
    'unet': (UNET, UNET),
    'unet_r34': (RESNET34 + SMP_UNET, RESNET34 + SMP_UNET),
    'deeplabv3plus_r34': (RESNET34 + DEEPLAB, RESNET34 + DEEPLAB),
    'sam_conv': (SAM + SAM_CONV, SAM_CONV),
    'sam_unet': (SAM + SAM_UNET, SAM_UNET),
    'sam_conv_lora': (SAM + LORA + SAM_CONV, LORA + SAM_CONV),
    'sam_unet_lora': (SAM + LORA + SAM_UNET, LORA + SAM_UNET),
}


def build(name: str):
    """A network without memory."""
    cfg = copy.deepcopy(Config.fromfile(REPO / f'configs/_base_/models/{name.removesuffix("_lora")}.py').model)
    cfg.decode_head.num_classes = 2
    if name.endswith('_lora'):
        cfg.backbone.lora_cfg = dict(rank=4)
    with torch.device('meta'):
        return MODELS.build(cfg)


@pytest.mark.parametrize('name', SIZES)
def test_all_and_trained_parameters(name):
    parameters = dict(build(name).named_parameters())
    trained = {key: p for key, p in parameters.items() if p.requires_grad}
    assert (sum(p.numel() for p in parameters.values()), sum(p.numel() for p in trained.values())) == SIZES[name]
    if name.startswith('sam'):
        parts = ('decode_head.', *(('.lora_a', '.lora_b') if name.endswith('lora') else ()))
        assert all(key.startswith(parts[0]) or key.endswith(parts[1:]) for key in trained)


def test_the_page_of_encoders_states_them():
    page = (REPO / 'docs/encoders.md').read_text()
    rows = re.findall(r'^\| `configs/_base_/models/(\w+)\.py`(.*?) \| .+ \| ([\d,]+) \| (.+) \|$', page, re.MULTILINE)
    stated = {name + ('_lora' if 'lora_cfg' in options else ''): sizes for name, options, *sizes in rows}
    assert stated == {
        name: [f'{size:,}', 'all' if trained == size else f'{trained:,}'] for name, (size, trained) in SIZES.items()
    }
    assert f'| {SAM:,} |' in page
    assert f'{LORA:,} for all twelve blocks' in page
