"""Blocks shared by several networks."""

from .activation import StarReLU
from .body_edge import BodyEdgeSeparation, SpatialFusion
from .decoders import MLPDecoder, UShapedDecoder, fuse_projected
from .lora import LoRALinear, add_lora, merge_lora
from .mixer import ConvMixerBlock, ConvMLP, TransformerBlock, depthwise_conv, to_map
from .norm import LayerNorm2d, RMSNorm2d
from .stage_dropout import drop_behind

__all__ = [
    'BodyEdgeSeparation',
    'ConvMLP',
    'ConvMixerBlock',
    'LayerNorm2d',
    'LoRALinear',
    'MLPDecoder',
    'RMSNorm2d',
    'SpatialFusion',
    'StarReLU',
    'TransformerBlock',
    'UShapedDecoder',
    'add_lora',
    'depthwise_conv',
    'drop_behind',
    'fuse_projected',
    'merge_lora',
    'to_map',
]
