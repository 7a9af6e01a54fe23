"""Any network of segmentation_models_pytorch (smp) as a segmentor of mmsegmentation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import CheckpointError, ConfigError, DataError
from ..external import download_weights, load_exactly, read_weights, weights_of
from ..layers import drop_behind

#: Prefix of encoders that are networks of timm.
_TIMM = 'tu-'


def _with_center(decoder: nn.Module) -> list[nn.Module]:
    """The block over the coarsest feature map, if there is one, and the blocks up to the finest."""
    center = getattr(decoder, 'center', None)
    blocks = decoder.blocks
    stages = list(blocks.values() if isinstance(blocks, nn.ModuleDict) else blocks)
    return stages if center is None or isinstance(center, nn.Identity) else [center, *stages]


def _attention_pyramid(decoder: nn.Module) -> list[nn.Module]:
    units = (getattr(decoder, name, None) for name in ('gau3', 'gau2', 'gau1'))
    return [decoder.fpa, *(unit for unit in units if unit is not None)]


#: By architecture, the modules of a decoder that are followed by another stage: dropout goes between them.
INNER_STAGES: dict[str, Callable[[nn.Module], Sequence[nn.Module]]] = {
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


@MODELS.register_module()
class SMPEncoder(BaseModule):
    """Wraps an encoder of smp as a backbone; built by `SMPSegmentor`.

    Args:
        encoder: The encoder of a network of the library.
        name: Its name in the library.
        pretrained_weights: Name of its weights in the library, a local file, or None for random ones; loaded by
            `init_weights`.
        in_channels: Number of input bands.
        divisible: Whether image sides must be multiples of the encoder's stride.
        rebuild: Builds the whole network again; called with `encoder_weights` and, for a file of a timm network,
            `pretrained_cfg_overlay`.
    """

    _is_init: bool  # of mmengine's module

    def __init__(
        self,
        encoder: nn.Module,
        name: str,
        pretrained_weights: str | None,
        in_channels: int,
        divisible: bool,
        rebuild: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.name = name
        self.pretrained_weights = pretrained_weights
        self.in_channels = in_channels
        self.out_channels = tuple(encoder.out_channels)
        self._divisor = encoder.output_stride if divisible else 1
        self._rebuild = rebuild

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes all feature maps.

        Args:
            x: Normalized image (B, in_channels, H, W).

        Returns:
            The image itself, then feature maps (B, out_channels[i], H / 2 ** i, W / 2 ** i).

        Raises:
            DataError: H or W is not a multiple of the encoder's stride, where the network requires it.
        """
        height, width = x.shape[2:]
        if height % self._divisor or width % self._divisor:
            raise DataError(
                f'image size {height}x{width}: this network requires multiples of {self._divisor}; set '
                f'size_divisor={self._divisor} and test_cfg=dict(size_divisor={self._divisor}) in '
                'model.data_preprocessor'
            )
        return tuple(self.encoder(x))

    def init_weights(self) -> None:
        """Loads the pretrained weights.

        Raises:
            CheckpointError: They cannot be read, or do not match.
        """
        source = self.pretrained_weights
        if source is None or self._is_init:
            return
        with weights_of(f'encoder {self.name}', source, 'model.encoder_weights'):
            find = self._from_timm if self.name.startswith(_TIMM) else self._from_smp
            load_exactly(self.encoder, find(source).state_dict())
        print_log(f'encoder {self.name}: loaded pretrained weights {source!r}', logger='current')
        self._is_init = True

    def _from_smp(self, source: str) -> nn.Module:
        """An encoder of smp itself with pretrained weights, adapted to the number of bands as smp does."""
        known = smp.encoders.encoders[self.name]['pretrained_settings']
        if source in known:
            path: str | Path = download_weights(known[source]['repo_id'], known[source]['revision'])
        elif Path(source).expanduser().is_file():
            path = source
        else:
            raise CheckpointError(f'no such file, and the known names are {", ".join(known)}')
        encoder = smp.encoders.get_encoder(self.name, in_channels=3, depth=self.encoder._depth, weights=None)
        encoder.load_state_dict(read_weights(path))
        encoder.set_in_channels(self.in_channels, pretrained=True)
        return encoder

    def _from_timm(self, source: str) -> nn.Module:
        """The same for a network of timm, which itself adapts weights to bands and position tables."""
        if Path(source).expanduser().is_file():
            overlay = dict(state_dict=read_weights(source))
            return self._rebuild(encoder_weights=source, pretrained_cfg_overlay=overlay).encoder
        if source != 'imagenet':
            raise CheckpointError("no such file, and the only known name is 'imagenet', timm's default weights")
        settings = timm.get_pretrained_cfg(self.name.removeprefix(_TIMM), allow_unregistered=False)
        if settings is not None and settings.hf_hub_id:
            download_weights(settings.hf_hub_id)  # without a network this fails at once, while timm retries for long
        return self._rebuild(encoder_weights=source).encoder


@MODELS.register_module()
class SMPHead(BaseDecodeHead):
    """Decoder and classifier of a network of smp as a decode head; built by `SMPSegmentor`.

    Args:
        in_channels: Number of channels of each feature map of the encoder.
        decoder: Module that takes the list of all feature maps.
        segmentation_head: Module that turns the output of the decoder into class logits.
        align_corners: Whether resizing of logits aligns corners, if they are smaller than the image.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        decoder: nn.Module,
        segmentation_head: nn.Module,
        *,
        align_corners: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels=list(in_channels),
            channels=1,  # of the parent's classifier, which is removed below
            in_index=list(range(len(in_channels))),
            input_transform='multiple_select',
            dropout_ratio=0.0,
            align_corners=align_corners,
            init_cfg=None,
            **kwargs,
        )
        del self.conv_seg
        self.decoder = decoder
        self.segmentation_head = segmentation_head

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits.

        Args:
            inputs: All feature maps of the encoder, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, out_channels, H, W), for most architectures at full resolution.
        """
        return self.segmentation_head(self.decoder(list(inputs)))


@MODELS.register_module()
class SMPSegmentor(EncoderDecoder):
    """Any architecture and encoder of smp, trained and tested like every other segmentor of this package.

    `backbone` is the network's encoder and `decode_head` its decoder with the classifier, so that hooks, learning rates
    by part and compilation find them under their usual names. Outside of training the outputs are those of smp, bit
    for bit.

    Args:
        arch: Name of the architecture: 'unet', 'deeplabv3plus', 'fpn', ...
        encoder_name: Name of the encoder, such as 'resnet34', or 'tu-' and the name of a network of timm.
        encoder_weights: Name of pretrained weights in smp ('imagenet'), a local file with weights of the encoder, or
            None for random ones. Loaded by `init_weights`, which only training calls.
        in_channels: Number of input bands.
        decoder_dropout: Channel dropout rate between the stages of the decoder, see `INNER_STAGES`. Dropout that an
            architecture has itself is set in `network_cfg`.
        network_cfg: Further arguments of `smp.create_model`, such as `encoder_depth` or `decoder_channels`.
        decode_head: Config of `SMPHead`: `num_classes`, `loss_decode`, `align_corners`, ...
        **kwargs: The other arguments of `EncoderDecoder`.

    Raises:
        ConfigError: smp does not know a name or an argument, or the architecture does not fit.
    """

    def __init__(
        self,
        arch: str = 'unet',
        encoder_name: str = 'resnet34',
        encoder_weights: str | None = 'imagenet',
        in_channels: int = 3,
        decoder_dropout: float = 0.3,
        network_cfg: Mapping[str, Any] | None = None,
        *,
        decode_head: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        head = {'type': 'SMPHead', **decode_head}
        options = dict(network_cfg or {})
        _check_options(arch, encoder_name, options)
        classes = head.get('out_channels') or head['num_classes']
        build = partial(
            smp.create_model, arch=arch, encoder_name=encoder_name, in_channels=in_channels, classes=classes, **options
        )
        try:
            network = build(encoder_weights=None)
        except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
            raise ConfigError(
                f'model: smp cannot build arch={arch!r}, encoder_name={encoder_name!r}: {error}'
            ) from None
        if decoder_dropout:
            if arch.lower() not in INNER_STAGES:
                raise ConfigError(f'model.decoder_dropout: not supported for arch={arch!r}; set decoder_dropout=0')
            drop_behind(INNER_STAGES[arch.lower()](network.decoder), decoder_dropout)
        encoder = ConfigDict(
            type='SMPEncoder',
            encoder=network.encoder,
            name=encoder_name,
            pretrained_weights=encoder_weights,
            in_channels=in_channels,
            divisible=network.requires_divisible_input_shape,
            rebuild=build,
        )
        head.update(decoder=network.decoder, segmentation_head=network.segmentation_head)
        head['in_channels'] = list(network.encoder.out_channels)
        super().__init__(backbone=encoder, decode_head=ConfigDict(head), **kwargs)


def _check_options(arch: str, encoder_name: str, options: Mapping[str, Any]) -> None:
    """Rejects arguments that smp would accept and ignore, or that would change the network's output."""
    if ':' in encoder_name:  # timm would download such a name from the hub, or read it from a folder
        raise ConfigError(f'model.encoder_name={encoder_name!r}: expected the name of a network of smp or timm')
    for name in ('activation', 'aux_params'):
        if name in options:
            raise ConfigError(f'model.network_cfg.{name}: not supported, as losses take the logits of pixels alone')
    known = smp.MODEL_ARCHITECTURES_MAPPING.get(arch.lower())
    if known is not None and not encoder_name.startswith(_TIMM):
        # Arguments that an architecture does not know go to the encoder, where smp's own ignore them.
        arguments = set(inspect.signature(known.__init__).parameters) - {'self', 'kwargs'}
        if unknown := set(options) - arguments:
            raise ConfigError(
                f'model.network_cfg.{min(unknown)}: unknown argument of {arch}; expected some of '
                f'{", ".join(sorted(arguments))}'
            )
