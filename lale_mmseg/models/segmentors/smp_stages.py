"""Where the decoders of segmentation_models_pytorch have their stages, by architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ...errors import ConfigError


def _with_center(decoder: nn.Module) -> list[nn.Module]:
    """The block over the coarsest map, where there is one, and the blocks up to the finest map."""
    center = getattr(decoder, 'center', None)
    blocks = decoder.blocks
    stages = list(blocks.values() if isinstance(blocks, nn.ModuleDict) else blocks)
    return stages if center is None or isinstance(center, nn.Identity) else [center, *stages]


def _attention_pyramid(decoder: nn.Module) -> list[nn.Module]:
    units = (getattr(decoder, name, None) for name in ('gau3', 'gau2', 'gau1'))
    return [decoder.fpa, *(unit for unit in units if unit is not None)]


#: Modules behind each of which another stage follows, from a decoder of each architecture: dropout goes there.
_INNER_STAGES: dict[str, Callable[[nn.Module], Sequence[nn.Module]]] = {
    'unet': lambda decoder: _with_center(decoder)[:-1],
    'unetplusplus': lambda decoder: _with_center(decoder)[:-1],
    'manet': lambda decoder: _with_center(decoder)[:-1],
    'linknet': lambda decoder: _with_center(decoder)[:-1],
    'fpn': lambda decoder: [decoder.p5, decoder.p4, decoder.p3, decoder.p2],
    'pspnet': lambda decoder: [decoder.psp],
    'deeplabv3': lambda decoder: [decoder.aspp],
    'deeplabv3plus': lambda decoder: [decoder.aspp],
    'pan': lambda decoder: _attention_pyramid(decoder)[:-1],
    'upernet': lambda decoder: [decoder.psp, *decoder.fpn_lateral_blocks],
    'segformer': lambda decoder: list(decoder.mlp_stage),
}


def inner_stages(arch: str, decoder: nn.Module) -> list[nn.Module]:
    """The stages of a decoder that another one follows.

    Args:
        arch: Name of the architecture, in small letters.
        decoder: Its decoder.

    Raises:
        ConfigError: The stages of the architecture are not known.
    """
    find = _INNER_STAGES.get(arch)
    try:
        if find is not None:
            return list(find(decoder))
    except AttributeError:  # another version of the library
        pass
    raise ConfigError(
        f'model.decoder_dropout: the decoder stages of arch={arch!r} are not known with the installed '
        'segmentation_models_pytorch; set decoder_dropout=0'
    )
