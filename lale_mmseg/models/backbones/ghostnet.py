"""GhostNet: More Features from Cheap Operations (arXiv 1911.11907), timm's network without its classifier.

Weights have the names of timm and of the published files. Differences: feature maps of all five strides, images of any
size, sizes beside those of timm, and no last 1x1 convolution (960 channels at stride 32), which only feeds the
classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from timm.models import ghostnet
from torch import Tensor, nn

from .archs import arch_settings, check_out_indices

#: Factor on the widths of GhostNet x1.0.
ARCHS: dict[str, dict[str, float]] = {
    'x1.0': dict(multiplier=1.0),
    'x1.3': dict(multiplier=1.3),
    'x1.5': dict(multiplier=1.5),
}
#: Last of timm's block groups at strides 2, 4, 8, 16 and 32. timm's own `features_only` takes the first of each stride.
_LAST_GROUPS = (0, 2, 4, 6, 8)


@MODELS.register_module()
class GhostNet(BaseModule):
    """GhostNet backbone: bottlenecks that make half of their channels by depthwise convolutions of the other half.

    Feature maps keep the memory format of the input: channels-last in, channels-last throughout.

    Args:
        arch: 'x1.0', 'x1.3' or 'x1.5', or a dict of `multiplier`, the factor on the widths of x1.0.
        in_channels: Number of input bands.
        norm_cfg: `type` 'BN' or 'SyncBN'.
        out_indices: Indices of the stages whose feature maps are returned: 0 to 4 for strides 2, 4, 8, 16 and 32. The
            default has the strides of the other backbones.
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: `arch` or `out_indices` is invalid.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'x1.0',
        in_channels: int = 3,
        norm_cfg: dict = dict(type='BN'),
        out_indices: Sequence[int] = (1, 2, 3, 4),
        init_cfg: dict | list[dict] | None = dict(type='Kaiming', layer='Conv2d'),
    ) -> None:
        super().__init__(init_cfg)
        width = arch_settings(arch, ARCHS)['multiplier']
        self.out_indices = check_out_indices(out_indices, len(_LAST_GROUPS))
        # timm registers three widths; the layout of the blocks is the same for all.
        network = ghostnet.GhostNet(timm.create_model('ghostnet_050').cfgs, width=width, in_chans=in_channels)
        if norm_cfg['type'] == 'SyncBN':
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.conv_stem, self.bn1, self.act1 = network.conv_stem, network.bn1, network.act1
        self.blocks = network.blocks[: _LAST_GROUPS[-1] + 1]
        self.embed_dims = tuple(self.blocks[group][-1].ghost2.out_chs for group in _LAST_GROUPS)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Number of channels of each returned feature map."""
        return tuple(self.embed_dims[index] for index in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the feature maps of the stages in `out_indices`.

        Args:
            x: Normalized image (B, in_channels, H, W), any H and W.

        Returns:
            Feature maps (B, embed_dims[i], ceil(H / s), ceil(W / s)) with strides s of 2, 4, 8, 16, 32.
        """
        outputs = []
        x = self.act1(self.bn1(self.conv_stem(x)))
        for group, block in enumerate(self.blocks):
            x = block(x)
            if group in _LAST_GROUPS and _LAST_GROUPS.index(group) in self.out_indices:
                outputs.append(x)
        return tuple(outputs)
