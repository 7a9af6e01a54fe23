"""The encoder of a network of segmentation_models_pytorch, as a backbone of mmsegmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import CheckpointError, DataError
from ..external import download_weights, import_extra, load_exactly, read_weights, weights_of

#: Encoders that are networks of timm.
_TIMM = 'tu-'


@MODELS.register_module()
class SMPEncoder(BaseModule):
    """Wraps an encoder; `SMPSegmentor` builds it.

    Args:
        encoder: The encoder of a network of the library.
        name: Its name in the library.
        pretrained_weights: Name of its weights in the library, a local file, or None for random ones; loaded by
            `init_weights`.
        in_channels: Number of input bands.
        divisible: Whether the sides of images must be multiples of the encoder's stride.
        rebuild: Makes another such encoder; called with `encoder_weights` and, for a file of a timm network,
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
        """Computes all maps.

        Args:
            x: Normalized image (B, in_channels, H, W).

        Returns:
            The image itself, then maps (B, out_channels[i], H / 2 ** i, W / 2 ** i).

        Raises:
            DataError: A side is no multiple of what the network needs.
        """
        height, width = x.shape[2:]
        if height % self._divisor or width % self._divisor:
            raise DataError(
                f'an image of {height}x{width} pixels: this network takes multiples of {self._divisor}; set '
                f'size_divisor={self._divisor} and test_cfg=dict(size_divisor={self._divisor}) in '
                'model.data_preprocessor'
            )
        return tuple(self.encoder(x))

    def init_weights(self) -> None:
        """Loads the pretrained weights.

        Raises:
            CheckpointError: They cannot be had, or do not fit.
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
        """An encoder of smp's own with pretrained weights, fitted to the number of bands as smp does."""
        library = import_extra('segmentation_models_pytorch').encoders
        known = library.encoders[self.name]['pretrained_settings']
        if source in known:
            path: str | Path = download_weights(known[source]['repo_id'], known[source]['revision'])
        elif Path(source).expanduser().is_file():
            path = source
        else:
            raise CheckpointError(f'no such file, and the known names are {", ".join(known)}')
        encoder = library.get_encoder(self.name, in_channels=3, depth=self.encoder._depth, weights=None)
        encoder.load_state_dict(read_weights(path))
        encoder.set_in_channels(self.in_channels, pretrained=True)
        return encoder

    def _from_timm(self, source: str) -> nn.Module:
        """The same for a network of timm, which fits weights to bands and position tables itself."""
        if Path(source).expanduser().is_file():
            overlay = dict(state_dict=read_weights(source))
            return self._rebuild(encoder_weights=source, pretrained_cfg_overlay=overlay)
        if source != 'imagenet':
            raise CheckpointError("no such file; the one known name is 'imagenet': the weights that timm's name means")
        settings = import_extra('timm').get_pretrained_cfg(self.name.removeprefix(_TIMM), allow_unregistered=False)
        if settings.hf_hub_id:
            download_weights(settings.hf_hub_id)  # fails soon, where timm's own way asks many times
        return self._rebuild(encoder_weights=source)
