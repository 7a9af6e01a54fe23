"""Networks and their parts; importing this package registers all of them."""

from . import attention, backbones, decode_heads, layers, losses, segmentors
from .data_preprocessor import ChannelsLastDataPreProcessor

__all__ = ['ChannelsLastDataPreProcessor', 'attention', 'backbones', 'decode_heads', 'layers', 'losses', 'segmentors']
