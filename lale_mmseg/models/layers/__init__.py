"""Blocks shared by several networks."""

from .activation import StarReLU
from .body_edge import BodyEdgeSeparation, SpatialFusion
from .decoders import MLPDecoder, UShapedDecoder, fuse_projected
from .mixer import ConvMixerBlock, ConvMLP, TransformerBlock, depthwise_conv, to_map
from .norm import LayerNorm2d, RMSNorm2d

__all__ = [
    'BodyEdgeSeparation',
    'ConvMLP',
    'ConvMixerBlock',
    'LayerNorm2d',
    'MLPDecoder',
    'RMSNorm2d',
    'SpatialFusion',
    'StarReLU',
    'TransformerBlock',
    'UShapedDecoder',
    'depthwise_conv',
    'fuse_projected',
    'to_map',
]
