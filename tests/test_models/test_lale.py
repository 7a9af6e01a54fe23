import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS
from torch import nn

from lale_mmseg.models.backbones import LALE
from lale_mmseg.models.decode_heads import LALEHead
from lale_mmseg.models.layers import ConvMixerBlock, TransformerBlock


def network(num_classes: int = 7, **backbone) -> nn.Module:
    """Backbone and head as one module, logits at stride 4."""
    head = LALEHead(num_classes=num_classes, norm_cfg=dict(type='BN'))
    return nn.Sequential(LALE(**backbone), head)


@pytest.mark.parametrize(
    ('arch', 'parameters', 'mebibytes'),
    [('s1', 1_566_981, 5.98), ('s2', 2_612_205, 9.97), ('s3', 3_657_429, 13.95), ('s4', 4_702_653, 17.94)],
)
def test_sizes_equal_the_published_table(arch, parameters, mebibytes):
    model = network(arch=arch)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(b.numel() for b in model.buffers()) == 257
    assert round((parameters + 257) * 4 / 2**20, 2) == mebibytes


def test_memory_format_of_the_input_is_kept_from_stem_to_logits():
    model = network().to(memory_format=torch.channels_last)
    converted = []

    def check(module, inputs, output):
        if output.dim() == 4 and output.shape[1] > 1 and not output.is_contiguous(memory_format=torch.channels_last):
            converted.append(type(module).__name__)

    for module in model.modules():
        if not isinstance(module, (nn.Sequential, LALE)):
            module.register_forward_hook(check)
    logits = model(torch.randn(2, 3, 96, 64).to(memory_format=torch.channels_last))
    assert logits.is_contiguous(memory_format=torch.channels_last)
    # Attention works on (B, N, C) tokens; every 4-dimensional map stays channels-last.
    assert converted == []


def test_k7_ablation_changes_kernels_norm_and_activation_only():
    model = LALE('s1', kernel_size=7, norm_cfg=dict(type='LayerNorm2d'), act_cfg=dict(type='GELU'))
    kernels = {m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d)}
    assert kernels == {(7, 7), (1, 1)}
    names = {type(m).__name__ for m in model.modules()}
    assert {'LayerNorm2d', 'GELU'} <= names
    assert not {'RMSNorm2d', 'StarReLU'} & names
    assert [x.shape[1] for x in model(torch.randn(1, 3, 64, 64))] == [32, 64, 128, 256]


def test_attention_of_each_stage_is_chosen_by_config():
    attention = dict(type='MultiHeadAttention')
    default = [type(stage[0]) for stage in LALE('s1').stages]
    assert default == [ConvMixerBlock, ConvMixerBlock, TransformerBlock, TransformerBlock]
    chosen = [type(stage[0]) for stage in LALE('s1', attn_cfg=[None, attention, attention, None]).stages]
    assert chosen == [ConvMixerBlock, TransformerBlock, TransformerBlock, ConvMixerBlock]


def test_head_takes_the_maps_of_another_backbone():
    backbone = MODELS.build(dict(type='ResNetV1c', depth=18, norm_cfg=dict(type='BN'), base_channels=16))
    head = LALEHead(in_channels=(16, 32, 64, 128), channels=24, num_classes=5, norm_cfg=dict(type='BN'))
    assert head(backbone(torch.randn(2, 3, 64, 64))).shape == (2, 5, 16, 16)


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


def test_sync_bn_falls_back_to_bn_outside_distributed_runs():
    head = revert_sync_batchnorm(LALEHead(num_classes=3))
    assert 'SyncBatchNorm' not in {type(m).__name__ for m in head.modules()}
    assert sum(b.numel() for b in head.buffers()) == 257


def test_head_rejects_unknown_arguments():
    with pytest.raises(TypeError, match='chanels'):
        LALEHead(num_classes=3, chanels=64)
