"""LALE's own facts; test_backbone_contract.py has the contract of all backbones."""

import pytest
import torch
from torch import nn

from lale_mmseg.models.backbones import LALE
from lale_mmseg.models.decode_heads import LALEHead


@pytest.mark.parametrize(
    ('arch', 'parameters', 'mebibytes'),
    [('s1', 1_566_981, 5.98), ('s2', 2_612_205, 9.97), ('s3', 3_657_429, 13.95), ('s4', 4_702_653, 17.94)],
)
def test_sizes_equal_the_published_table(arch, parameters, mebibytes):
    model = nn.Sequential(LALE(arch), LALEHead(num_classes=7, norm_cfg=dict(type='BN')))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(b.numel() for b in model.buffers()) == 257
    assert round((parameters + 257) * 4 / 2**20, 2) == mebibytes


def test_projecting_resizing_and_fusing_is_one_linear_map():
    """No activation lies between projections and fusing convolution, so fusing first must give the same."""
    head = LALEHead(num_classes=3, norm_cfg=dict(type='BN')).eval()
    maps = [torch.randn(1, width, 32 >> level, 32 >> level) for level, width in enumerate((32, 64, 128, 256))]
    merged = 0
    for position, (projection, x) in enumerate(zip(head.projections, maps, strict=True)):
        weight = head.fuse.weight[:, position * 128 : (position + 1) * 128]
        low = nn.functional.conv2d(projection(x), weight)
        merged = merged + nn.functional.interpolate(low, size=(32, 32), mode='bilinear', align_corners=False)
    expected = head.conv_seg(head.act(head.norm(merged)))
    torch.testing.assert_close(head(maps), expected, rtol=1e-3, atol=1e-4)
