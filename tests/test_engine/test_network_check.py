"""Networks are checked before a run starts."""

import pytest
from mmengine.config import Config

from lale_mmseg.engine.network_check import check_network
from lale_mmseg.errors import ConfigError
from tests.support import REPO


def config(name: str, **options) -> Config:
    """A shipped config with changes."""
    cfg = Config.fromfile(next((REPO / 'configs').rglob(f'{name}.py')))
    cfg.merge_from_dict(options)
    return cfg


FAULTS = [
    (
        'lrformer_t_1xb8-onecycle-400_palette-256x256',
        {'model.backbone.arch': 's'},
        r'model\.decode_head\.in_channels is \[96, 240, 384\], but maps \[1, 2, 3\] of model\.backbone \(LRFormer with '
        r"arch='s'\) have \[128, 320, 512\] channels; set in_channels=\[128, 320, 512\]",
    ),
    (
        'lrformer-plus_t_1xb8-onecycle-400_palette-256x256',
        {'model.backbone.arch': 's'},
        r'model\.decode_head\.in_channels is \[48, 96, 240, 384\], but .* have \[64, 128, 320, 512\] channels',
    ),
    (
        'lemevit_tiny_1xb8-onecycle-400_palette-256x256',
        {'model.auxiliary_head.in_channels': 64},
        r'model\.auxiliary_head\.in_channels is 64, but maps \[2\] .* have 192 channels; set in_channels=192',
    ),
    (
        'lale_s1_1xb8-onecycle-400_palette-256x256',
        {'model.decode_head.in_index': [0, 1, 2, 4]},
        r'model\.decode_head\.in_index is \[0, 1, 2, 4\], but model\.backbone \(LALE\) gives 4 maps',
    ),
    (
        'lrformer_t_1xb8-onecycle-400_palette-256x256',
        {'model.backbone.arch': 'tiny'},
        r"model\.backbone \(LRFormer\): arch='tiny': known sizes are t, s, b, l, xl",
    ),
    (
        'lale_s1_1xb8-onecycle-400_palette-256x256',
        {'model.backbone.attn_cfg': dict(type='LowResolutionSelfAttention', q_size=0)},
        r'model\.backbone \(LALE\): q_size=0: ',
    ),
]


@pytest.mark.parametrize(('name', 'options', 'message'), FAULTS)
def test_what_does_not_fit_is_named(name, options, message):
    check_network(config(name))
    with pytest.raises(ConfigError, match=message):
        check_network(config(name, **options))


def test_other_backbones_are_left_alone():
    cfg = config('lale_s1_1xb8-onecycle-400_palette-256x256')
    cfg.model.backbone = dict(type='ResNetV1c', depth=18)
    check_network(cfg)
