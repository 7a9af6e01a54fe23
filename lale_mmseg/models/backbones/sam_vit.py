"""The image encoder of Segment Anything (arXiv 2304.02643), built by timm, as a backbone: frozen, or with LoRA.

Differences: maps of inner blocks beside the neck's; images of any size in multiples of the patch (timm resamples the
position table); maps of the frozen encoder may be kept on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from ...errors import CheckpointError, ConfigError, DataError
from ..external import download_weights, import_extra, load_exactly, read_weights, weights_of
from ..feature_cache import FeatureCache, WeightsDigest, device_name
from ..layers import LoRALinear, add_lora, merge_lora
from .archs import check_counts

#: Width and number of blocks, heads, and the blocks that attend to the whole image (counted from 1), by size.
ARCHS: dict[str, dict[str, Any]] = {
    'base': dict(embed_dims=768, depth=12, num_heads=12, global_blocks=(3, 6, 9, 12)),
    'large': dict(embed_dims=1024, depth=24, num_heads=16, global_blocks=(6, 12, 18, 24)),
    'huge': dict(embed_dims=1280, depth=32, num_heads=16, global_blocks=(8, 16, 24, 32)),
}
PATCH, NECK_WIDTH = 16, 256
#: Name of the weights that Segment Anything was published with, on the hub.
_HUB = 'timm/samvit_{}_patch16.sa1b'
_PUBLISHED = 'sa1b'
_LORA_OPTIONS = ('rank', 'alpha', 'targets', 'dropout')


@MODELS.register_module()
class SAMViT(BaseModule):
    """SAM's image encoder: maps of chosen blocks, then the neck's, all at stride 16.

    Frozen (the default), no weight has a gradient, it is always in evaluation mode, and no graph is kept. `lora_cfg`
    freezes the weights, too, and trains additions of low rank. Weights are loaded by `init_weights`, which training
    alone calls; so is the cache opened there.

    Args:
        arch: 'base', 'large' or 'huge', or a dict of `embed_dims`, `depth`, `num_heads` and `global_blocks`.
        in_channels: Number of input bands.
        img_size: Side of the images that the position table is made for, in pixels: 1024 in all published weights.
        weights: 'sa1b' for the published weights (downloaded), a local file with those of Meta
            (sam_vit_b_01ec64.pth) or of timm, or None for random ones.
        out_blocks: Blocks whose maps are returned, counted from 1 and in order.
        out_neck: Whether the neck's map is returned, after those of the blocks.
        frozen: Whether no weight is trained.
        lora_cfg: `rank`, `alpha`, `targets` (names of linear layers: 'qkv', 'proj', 'fc1', 'fc2') and `dropout` of
            `add_lora`.
        cache_cfg: `dir`, `max_gb` and `dtype` of a `FeatureCache` for the maps of the frozen encoder.

    Raises:
        ConfigError: timm is not installed, a value cannot be used, or two arguments contradict each other.
    """

    _is_init: bool  # of mmengine's module

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'base',
        in_channels: int = 3,
        img_size: int = 1024,
        weights: str | None = None,
        out_blocks: Sequence[int] = (),
        out_neck: bool = True,
        frozen: bool = True,
        lora_cfg: Mapping[str, Any] | None = None,
        cache_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        settings = _settings(arch)
        check_counts(in_channels=in_channels, img_size=img_size)
        if img_size % PATCH:
            raise ConfigError(f'img_size={img_size}: a multiple of {PATCH} is due')
        _check_outputs(out_blocks, out_neck, settings['depth'])
        if not frozen and (lora_cfg is not None or cache_cfg is not None):
            raise ConfigError(
                f'frozen=False with {"lora_cfg" if lora_cfg is not None else "cache_cfg"}: that is for weights that '
                'are not trained; leave frozen out'
            )
        if lora_cfg is not None and cache_cfg is not None:
            raise ConfigError(
                'lora_cfg and cache_cfg: maps of a network that is trained cannot be kept; leave one of them out'
            )
        self.arch = arch if isinstance(arch, str) else None
        self.pretrained_weights = weights
        self.out_blocks = tuple(out_blocks)
        self.out_neck = out_neck
        self.frozen = frozen
        self.embed_dims = settings['embed_dims']
        self.vit = import_extra('timm').create_model(
            'samvit_base_patch16',
            pretrained=False,
            num_classes=0,
            global_pool='',
            img_size=img_size,
            in_chans=in_channels,
            embed_dim=settings['embed_dims'],
            depth=settings['depth'],
            num_heads=settings['num_heads'],
            global_attn_indexes=[block - 1 for block in settings['global_blocks']],
        )
        self._freeze(lora_cfg)
        self._cache = None if cache_cfg is None else FeatureCache.from_config(cache_cfg)
        self._cache_is_open = False
        self._digest = WeightsDigest()
        self.train()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Width of each map that is returned."""
        return (self.embed_dims,) * len(self.out_blocks) + (NECK_WIDTH,) * self.out_neck

    @property
    def adapters(self) -> list[LoRALinear]:
        """The layers that LoRA adapts."""
        return [module for module in self.vit.modules() if isinstance(module, LoRALinear)]

    @property
    def cache(self) -> FeatureCache | None:
        """The cache, once it is open."""
        return self._cache if self._cache_is_open else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of `out_blocks`, then the neck's if `out_neck`.

        Args:
            x: Normalized image (B, in_channels, H, W), H and W multiples of 16.

        Returns:
            Maps (B, embed_dims, H / 16, W / 16) and (B, 256, H / 16, W / 16).

        Raises:
            DataError: H or W is no multiple of 16.
        """
        height, width = x.shape[2:]
        if height % PATCH or width % PATCH:
            raise DataError(
                f'an image of {height}x{width} pixels: SAM takes multiples of {PATCH}; set size_divisor={PATCH} and '
                f'test_cfg=dict(size_divisor={PATCH}) in model.data_preprocessor'
            )
        if self.cache is not None:
            return self._cached(x)
        if not self.frozen or self.adapters:
            return self._maps(x)
        with torch.no_grad():
            return self._maps(x)

    def train(self, mode: bool = True) -> SAMViT:
        """Sets the mode of what is trained: nothing, the additions of LoRA, or all."""
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
            CheckpointError: The weights cannot be had, or do not fit.
            ConfigError: The folder of the cache cannot be made.
        """
        source = self.pretrained_weights
        if source is not None and not self._is_init:
            with weights_of(f'SAM encoder {self.arch or "of its own size"}', source, 'model.backbone.weights'):
                added = frozenset(name for name in self.vit.state_dict() if '.lora_' in name)
                load_exactly(self.vit, self._read(source), optional=added)
            print_log(f'SAM encoder: loaded pretrained weights {source!r}', logger='current')
        self._is_init = True
        self.open_cache()

    def open_cache(self) -> None:
        """Maps are kept from now on, if there is a `cache_cfg`; testing and prediction leave the disk alone."""
        if self._cache is not None:
            self._cache.open()
            self._cache_is_open = True

    def merge_lora(self) -> None:
        """Adds the additions of LoRA to the weights: a plain, frozen encoder of equal output."""
        merge_lora(self.vit)
        self.vit.requires_grad_(False)
        self.train(self.training)

    def _freeze(self, lora_cfg: Mapping[str, Any] | None) -> None:
        if lora_cfg is not None:
            for name in lora_cfg:
                if name not in _LORA_OPTIONS:
                    raise ConfigError(f'lora_cfg: unknown field {name!r}; known are {", ".join(_LORA_OPTIONS)}')
            # What no map depends on would never get a gradient.
            last = len(self.vit.blocks) if self.out_neck else self.out_blocks[-1]
            self.vit.requires_grad_(False)
            for block in self.vit.blocks[:last]:
                add_lora(block, **lora_cfg)
        elif self.frozen:
            self.vit.requires_grad_(False)
        elif not self.out_neck:
            self.vit.neck.requires_grad_(False)
            self.vit.blocks[self.out_blocks[-1] :].requires_grad_(False)

    def _maps(self, x: Tensor) -> tuple[Tensor, ...]:
        if not self.out_blocks:
            return (self.vit.forward_features(x),)
        indices = [block - 1 for block in self.out_blocks]
        if not self.out_neck:
            options: dict[str, Any] = dict(stop_early=True, intermediates_only=True)
            return tuple(self.vit.forward_intermediates(x, indices=indices, **options))
        neck, maps = self.vit.forward_intermediates(x, indices=indices)
        return (*maps, neck)

    @torch.compiler.disable
    @torch.no_grad()
    def _cached(self, x: Tensor) -> tuple[Tensor, ...]:
        assert self.cache is not None
        kind = x.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        versions = (torch.__version__, import_extra('timm').__version__)
        parts = (self._digest(self.vit), self.out_blocks, self.out_neck, device_name(x.device), autocast, *versions)
        return tuple(self.cache.maps(x, ' '.join(map(str, parts)), self._maps))

    def _read(self, source: str) -> dict[str, Tensor]:
        """Weights under timm's names."""
        if source == _PUBLISHED:
            if self.arch is None:
                raise CheckpointError('an encoder of its own size has no published weights')
            path = download_weights(_HUB.format(self.arch.lower()))
        elif Path(source).expanduser().is_file():
            path = Path(source)
        else:
            raise CheckpointError(f'no such file, and the one known name is {_PUBLISHED!r}')
        return import_extra('timm.models.vision_transformer_sam').checkpoint_filter_fn(read_weights(path), self.vit)


def _settings(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings that `arch` stands for, checked."""
    if isinstance(arch, str):
        if arch.lower() not in ARCHS:
            raise ConfigError(f'arch={arch!r}: known sizes are {", ".join(ARCHS)}')
        return ARCHS[arch.lower()]
    names = ARCHS['base'].keys()
    if not isinstance(arch, Mapping) or set(arch) != set(names):
        raise ConfigError(f'arch={arch!r}: one of {", ".join(ARCHS)} is due, or a dict of {", ".join(names)}')
    counts = {name: arch[name] for name in ('embed_dims', 'depth', 'num_heads')}
    check_counts(**counts)
    if arch['embed_dims'] % arch['num_heads']:
        raise ConfigError(f'arch.embed_dims={arch["embed_dims"]}: not divisible by num_heads={arch["num_heads"]}')
    if not set(arch['global_blocks']) <= set(range(1, arch['depth'] + 1)):
        raise ConfigError(f'arch.global_blocks={arch["global_blocks"]}: blocks are 1 to {arch["depth"]}')
    return dict(arch)


def _check_outputs(out_blocks: Sequence[int], out_neck: bool, depth: int) -> None:
    blocks = list(out_blocks) if isinstance(out_blocks, Sequence) and not isinstance(out_blocks, str) else [None]
    if not set(blocks) <= set(range(1, depth + 1)) or blocks != sorted(set(blocks)):
        raise ConfigError(f'out_blocks={out_blocks!r}: blocks from 1 to {depth} are due, each once and in order')
    if not blocks and not out_neck:
        raise ConfigError('out_neck=False without out_blocks: no map would be returned')
