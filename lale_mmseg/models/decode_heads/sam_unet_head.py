"""SAMUNetHead: a U-Net decoder whose skips are feature maps of a vision transformer's inner blocks.

After UNETR: Transformers for 3D Medical Image Segmentation (arXiv 2103.10504): transposed convolutions turn feature
maps of equal stride into a pyramid, the first block's into the finest level. Differences: two dimensions, no skip from
the image itself, bilinear upsampling in the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models.backbones.unet import BasicConvBlock
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import UpConvBlock, resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError


@MODELS.register_module()
class SAMUNetHead(BaseDecodeHead):
    """Makes a pyramid of equally coarse feature maps, decodes it as a U-Net does, and classifies at full resolution.

    Feature map i of n is enlarged 2 ** (n - 1 - i) times: those of four blocks of SAM, all at stride 16, get strides
    2, 4, 8 and 16. The last stage has no skip and doubles the finest level. 6,298,402 parameters with SAM-B and two
    classes.

    Args:
        in_channels: Number of channels of each feature map, starting with the one that becomes finest.
        decoder_channels: Number of channels of each level of the pyramid, finest first, and of the decoder there.
        channels: Number of channels of the last stage.
        in_index: Index of each feature map in the backbone's output.
        decoder_dropout: Channel dropout rate between stages of the decoder.
        norm_cfg: Norm of the convolutions.
        dropout_ratio: Channel dropout rate before the classifier.
        align_corners: Whether bilinear resizing aligns corners.
        init_cfg: Initialization of the classifier; torch's default if None. Convolutions are initialized by
            `ConvModule`.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...).

    Raises:
        ConfigError: `in_channels` and `decoder_channels` differ in length.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (768, 768, 768, 768),
        decoder_channels: Sequence[int] = (80, 160, 320, 640),
        channels: int = 40,
        *,
        in_index: Sequence[int] = (0, 1, 2, 3),
        decoder_dropout: float = 0.3,
        norm_cfg: dict = dict(type='SyncBN'),
        dropout_ratio: float = 0.0,
        align_corners: bool = False,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if len(in_channels) != len(decoder_channels):
            raise ConfigError(
                f'SAMUNetHead: in_channels has {len(in_channels)} entries, decoder_channels {len(decoder_channels)}; '
                'expected one of each per feature map'
            )
        super().__init__(
            in_channels=list(in_channels),
            channels=channels,
            in_index=list(in_index),
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            init_cfg=init_cfg,
            **kwargs,
        )
        norm_act: dict[str, Any] = dict(norm_cfg=norm_cfg, act_cfg=self.act_cfg)

        def project(inputs: int, width: int, doublings: int) -> nn.Module:
            if not doublings:
                return ConvModule(inputs, width, 1, bias=False, **norm_act)
            double: dict[str, Any] = dict(conv_cfg=dict(type='deconv'), stride=2, bias=False, **norm_act)
            pairs = pairwise((inputs, *[width] * doublings))
            return nn.Sequential(*(ConvModule(*pair, 2, **double) for pair in pairs))

        last = len(decoder_channels) - 1
        resizing = dict(scale_factor=2, mode='bilinear', align_corners=align_corners)
        blocks = dict(conv_block=BasicConvBlock, upsample_cfg=dict(type='InterpConv', upsample_cfg=resizing))
        self.projections = nn.ModuleList(
            project(inputs, width, last - level)
            for level, (inputs, width) in enumerate(zip(in_channels, decoder_channels, strict=True))
        )
        self.stages = nn.ModuleList(  # coarsest first
            UpConvBlock(in_channels=low, skip_channels=high, out_channels=high, **blocks, **norm_act)
            for low, high in pairwise(decoder_channels[::-1])
        )
        self.between = nn.ModuleList(nn.Dropout2d(decoder_dropout) for _ in self.stages)
        self.last_stage = ConvModule(decoder_channels[0], channels, 3, padding=1, bias=False, **norm_act)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits.

        Args:
            inputs: Feature maps of the backbone; the n of `in_index` have one size, (B, C_i, h, w).

        Returns:
            Logits (B, out_channels, h * 2 ** n, w * 2 ** n).
        """
        inputs = self._transform_inputs(inputs)
        # n x (B, decoder_channels[i], h * 2 ** (n - 1 - i), w * 2 ** (n - 1 - i))
        pyramid = [projection(x) for projection, x in zip(self.projections, inputs, strict=True)]
        x = pyramid[-1]
        for stage, drop, skip in zip(self.stages, self.between, pyramid[-2::-1], strict=True):
            x = drop(stage(skip, x))  # the size of skip
        size = (2 * x.shape[2], 2 * x.shape[3])
        return self.cls_seg(self.last_stage(resize(x, size=size, mode='bilinear', align_corners=self.align_corners)))
