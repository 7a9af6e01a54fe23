"""The image encoder of Segment Anything (arXiv 2304.02643), timm's network, as a backbone: frozen, or with LoRA.

Differences: feature maps of inner blocks in addition to the neck's; images of any size in multiples of the patch (timm
resamples the position table); feature maps of the frozen encoder may be cached on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from timm.models.vision_transformer_sam import checkpoint_filter_fn
from torch import Tensor

from ...errors import CheckpointError, ConfigError, DataError
from ..external import download_weights, load_exactly, read_weights, weights_of
from ..feature_cache import FeatureCache, device_name, digest
from ..layers import LoRALinear, add_lora, merge_lora
from .archs import arch_settings, check_out_indices

#: `global_attn_indexes` are the blocks that attend to the whole image instead of windows, counted from 0.
ARCHS: dict[str, dict[str, Any]] = {
    'base': dict(embed_dims=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11)),
    'large': dict(embed_dims=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23)),
    'huge': dict(embed_dims=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31)),
}
PATCH, NECK_CHANNELS = 16, 256
#: Repository of the published weights on the hub.
_HUB = 'timm/samvit_{}_patch16.sa1b'
_PUBLISHED = 'sa1b'


@MODELS.register_module()
class SAMViT(BaseModule):
    """SAM's image encoder: feature maps of selected blocks, then the neck's, all at stride 16.

    If frozen (the default), no weight has a gradient, the encoder is always in evaluation mode, and no graph is kept.
    `lora_cfg` also freezes the weights, and trains low-rank updates. `init_weights`, which only training calls, loads
    the pretrained weights and opens the cache.

    Args:
        arch: 'base', 'large' or 'huge', or a dict of `embed_dims`, `depth`, `num_heads` and `global_attn_indexes`.
        in_channels: Number of input bands.
        img_size: Side length in pixels of the images that the position table is made for: 1024 in all published
            weights.
        weights: 'sa1b' for the published weights (downloaded), a local file with those of Meta
            (sam_vit_b_01ec64.pth) or of timm, or None for random ones.
        out_indices: Indices of the blocks whose feature maps are returned, starting from 0.
        out_neck: Whether to return the neck's feature map, after those of the blocks.
        frozen: Whether to train no weight.
        lora_cfg: Arguments of `add_lora`: `rank`, `alpha`, `targets` (names of linear layers: 'qkv', 'proj', 'fc1',
            'fc2') and `dropout`.
        cache_cfg: Arguments of `FeatureCache` for the feature maps of the frozen encoder: `dir`, `max_gb` and `dtype`.

    Raises:
        ConfigError: `arch` or `out_indices` is invalid, or two arguments contradict each other.
    """

    _is_init: bool  # of mmengine's module

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'base',
        in_channels: int = 3,
        img_size: int = 1024,
        weights: str | None = None,
        out_indices: Sequence[int] = (),
        out_neck: bool = True,
        frozen: bool = True,
        lora_cfg: Mapping[str, Any] | None = None,
        cache_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        settings = arch_settings(arch, ARCHS)
        if out_indices or not out_neck:
            out_indices = check_out_indices(out_indices, settings['depth'])
        if lora_cfg is not None and not frozen:
            raise ConfigError('lora_cfg requires frozen=True: it trains updates of frozen weights')
        if cache_cfg is not None and (lora_cfg is not None or not frozen):
            raise ConfigError('cache_cfg requires frozen=True without lora_cfg: a trained network cannot be cached')
        self.arch = arch if isinstance(arch, str) else None
        self.pretrained_weights = weights
        self.out_indices = tuple(out_indices)
        self.out_neck = out_neck
        self.frozen = frozen
        self.embed_dims = settings['embed_dims']
        self.vit = timm.create_model(
            'samvit_base_patch16',
            pretrained=False,
            num_classes=0,
            global_pool='',
            img_size=img_size,
            in_chans=in_channels,
            embed_dim=settings['embed_dims'],
            depth=settings['depth'],
            num_heads=settings['num_heads'],
            global_attn_indexes=list(settings['global_attn_indexes']),
        )
        self._freeze(lora_cfg)
        self._cache = None if cache_cfg is None else FeatureCache(**cache_cfg)
        self._cache_is_open = False
        self._digest = ''  # of the weights, computed when the cache needs it
        self.train()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Number of channels of each returned feature map."""
        return (self.embed_dims,) * len(self.out_indices) + (NECK_CHANNELS,) * self.out_neck

    @property
    def adapters(self) -> list[LoRALinear]:
        """The layers that LoRA adapts."""
        return [module for module in self.vit.modules() if isinstance(module, LoRALinear)]

    @property
    def cache(self) -> FeatureCache | None:
        """The cache, once it is open."""
        return self._cache if self._cache_is_open else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the feature maps of `out_indices`, then the neck's if `out_neck`.

        Args:
            x: Normalized image (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            Feature maps (B, embed_dims, H / 16, W / 16) and (B, 256, H / 16, W / 16).

        Raises:
            DataError: H or W is not a multiple of 16.
        """
        height, width = x.shape[2:]
        if height % PATCH or width % PATCH:
            raise DataError(
                f'image size {height}x{width}: SAM requires multiples of {PATCH}; set size_divisor={PATCH} and '
                f'test_cfg=dict(size_divisor={PATCH}) in model.data_preprocessor'
            )
        if self.cache is not None:
            return self._cached(x)
        if not self.frozen or self.adapters:
            return self._encode(x)
        with torch.no_grad():
            return self._encode(x)

    def train(self, mode: bool = True) -> SAMViT:
        """Sets the mode of the trained part: nothing, the LoRA updates, or the whole encoder."""
        adapters = self.adapters
        super().train(mode and (not self.frozen or bool(adapters)))
        if self.frozen:
            self.vit.eval()
            for layer in adapters:
                layer.train(mode)
        return self

    def init_weights(self) -> None:
        """Loads the pretrained weights and opens the cache.

        Raises:
            CheckpointError: The weights cannot be read, or do not match.
            ConfigError: The folder of the cache cannot be created.
        """
        source = self.pretrained_weights
        if source is not None and not self._is_init:
            with weights_of(f'SAM encoder {self.arch or "of custom size"}', source, 'model.backbone.weights'):
                added = frozenset(name for name in self.vit.state_dict() if '.lora_' in name)
                load_exactly(self.vit, self._read(source), optional=added)
            print_log(f'SAM encoder: loaded pretrained weights {source!r}', logger='current')
        self._is_init = True
        self._digest = ''
        self.open_cache()

    def open_cache(self) -> None:
        """Starts to store feature maps if there is a `cache_cfg`; tests and predictions do not write to the disk."""
        if self._cache is not None:
            self._cache.open()
            self._cache_is_open = True

    def merge_lora(self) -> None:
        """Merges the LoRA updates into the weights, which gives a plain, frozen encoder with the same output."""
        merge_lora(self.vit)
        self.vit.requires_grad_(False)
        self.train(self.training)

    def _freeze(self, lora_cfg: Mapping[str, Any] | None) -> None:
        # Blocks after the last output would never get a gradient.
        last = len(self.vit.blocks) if self.out_neck else self.out_indices[-1] + 1
        if lora_cfg is not None:
            self.vit.requires_grad_(False)
            for block in self.vit.blocks[:last]:
                add_lora(block, **lora_cfg)
        elif self.frozen:
            self.vit.requires_grad_(False)
        elif not self.out_neck:
            self.vit.neck.requires_grad_(False)
            self.vit.blocks[last:].requires_grad_(False)

    def _encode(self, x: Tensor) -> tuple[Tensor, ...]:
        if not self.out_indices:
            return (self.vit.forward_features(x),)
        indices = list(self.out_indices)
        if not self.out_neck:
            options: dict[str, Any] = dict(stop_early=True, intermediates_only=True)
            return tuple(self.vit.forward_intermediates(x, indices=indices, **options))
        neck, maps = self.vit.forward_intermediates(x, indices=indices)
        return (*maps, neck)

    @torch.compiler.disable
    @torch.no_grad()
    def _cached(self, x: Tensor) -> tuple[Tensor, ...]:
        assert self.cache is not None
        self._digest = self._digest or digest(self.vit.state_dict())
        kind = x.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        versions = (torch.__version__, timm.__version__)
        parts = (self._digest, self.out_indices, self.out_neck, device_name(x.device), autocast, *versions)
        return tuple(self.cache.lookup(x, ' '.join(map(str, parts)), self._encode))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # torch and mmengine call this for every load, so that weights from a checkpoint get a digest of their own.
        self._digest = ''
        super()._load_from_state_dict(*args, **kwargs)

    def _read(self, source: str) -> dict[str, Tensor]:
        """Weights under timm's names."""
        if source == _PUBLISHED:
            if self.arch is None:
                raise CheckpointError('there are no published weights for an encoder of custom size')
            path = download_weights(_HUB.format(self.arch.lower()))
        elif Path(source).expanduser().is_file():
            path = Path(source)
        else:
            raise CheckpointError(f'no such file, and the only known name is {_PUBLISHED!r}')
        return checkpoint_filter_fn(read_weights(path), self.vit)
