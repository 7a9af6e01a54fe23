"""Heads are compared with their backbone before a run starts."""

import pytest
from mmengine.config import Config
from mmseg.registry import MODELS

from lale_mmseg.engine.network_check import check_heads
from lale_mmseg.errors import ConfigError
from tests.support import REPO


def network(name: str, **options):
    """A network of the shipped bases with changes."""
    cfg = Config.fromfile(REPO / f'configs/_base_/models/{name}.py')
    for head in ('decode_head', 'auxiliary_head'):
        if head in cfg.model:
            cfg.model[head].num_classes = 2
    cfg.merge_from_dict(options)
    return MODELS.build(cfg.model)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        (
            'lrformer',
            {'model.backbone.arch': 's'},
            r'decode_head\.in_channels=\[96, 240, 384\]: feature maps \[1, 2, 3\] .* have \[128, 320, 512\] channels',
        ),
        (
            'lemevit_upernet',
            {'model.auxiliary_head.in_channels': 64},
            r'model\.auxiliary_head\.in_channels=64: feature maps \[2\] of model\.backbone have \[192\] channels',
        ),
        (
            'lale',
            {'model.decode_head.in_index': [0, 1, 2, 4]},
            r'model\.decode_head\.in_index=\[0, 1, 2, 4\]: model\.backbone has 4 feature maps',
        ),
    ],
)
def test_what_does_not_fit_is_named(name, options, message):
    check_heads(network(name))
    with pytest.raises(ConfigError, match=message):
        check_heads(network(name, **options))
