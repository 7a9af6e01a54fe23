"""Blocks shared by several networks."""

from .activation import StarReLU
from .mixer import ConvMixerBlock, ConvMLP, TransformerBlock, depthwise_conv, to_map
from .norm import LayerNorm2d, RMSNorm2d

__all__ = [
    'ConvMLP',
    'ConvMixerBlock',
    'LayerNorm2d',
    'RMSNorm2d',
    'StarReLU',
    'TransformerBlock',
    'depthwise_conv',
    'to_map',
]
