"""SAMUNetHead: a U-Net decoder whose skips are maps of a vision transformer's inner blocks.

After UNETR (arXiv 2103.10504): transposed convolutions make a pyramid of maps that all have the same stride, the finest
of it from the first block. Differences: two dimensions, no skip from the image itself, resizing by bilinear
interpolation on the way up.
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
from ..layers import check_dropout


@MODELS.register_module()
class SAMUNetHead(BaseDecodeHead):
    """Makes a pyramid of equally coarse maps, decodes it as a U-Net does, and classifies at the image's own size.

    Map i of n gets a size 2 ** (n - 1 - i) times its own: with blocks 3, 6, 9 and 12 of SAM at stride 16, strides 2, 4,
    8 and 16. The last stage, without a skip, doubles the finest map. 1,540,162 parameters with SAM-B and two classes.

    Args:
        in_channels: Width of each map, the one to become finest first.
        widths: Width of each map of the pyramid, finest first, and of the decoder there.
        channels: Width of the last stage.
        in_index: Position of each map in the backbone's output.
        decoder_dropout: Probability to drop a channel between two stages of the decoder, in training.
        norm_cfg: Norm of the convolutions.
        dropout_ratio: Probability to drop a channel before the classifier, in training.
        init_cfg: Initialization of the classifier; torch's own by default. Convolutions start as `ConvModule` has it.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `act_cfg`, `align_corners` of
            every bilinear resizing, ...), which rejects unknown ones.

    Raises:
        ConfigError: `in_channels`, `widths` and `in_index` differ in length, there are fewer than two maps, or
            `decoder_dropout` is no probability.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (768, 768, 768, 768),
        widths: Sequence[int] = (32, 64, 128, 256),
        channels: int = 16,
        *,
        in_index: Sequence[int] = (0, 1, 2, 3),
        decoder_dropout: float = 0.3,
        norm_cfg: dict = dict(type='SyncBN'),
        dropout_ratio: float = 0.0,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if not len(in_channels) == len(widths) == len(in_index) >= 2:
            raise ConfigError(
                f'{len(in_channels)} in_channels, {len(widths)} widths and {len(in_index)} entries of in_index: one '
                'of each for every map is due, and at least two maps'
            )
        check_dropout('decoder_dropout', decoder_dropout)
        super().__init__(
            in_channels=list(in_channels),
            channels=channels,
            in_index=list(in_index),
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            dropout_ratio=dropout_ratio,
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

        last = len(widths) - 1
        resizing = dict(scale_factor=2, mode='bilinear', align_corners=self.align_corners)
        blocks = dict(conv_block=BasicConvBlock, upsample_cfg=dict(type='InterpConv', upsample_cfg=resizing))
        self.projections = nn.ModuleList(
            project(inputs, width, last - level)
            for level, (inputs, width) in enumerate(zip(in_channels, widths, strict=True))
        )
        self.stages = nn.ModuleList(  # coarsest first
            UpConvBlock(in_channels=low, skip_channels=high, out_channels=high, **blocks, **norm_act)
            for low, high in pairwise(widths[::-1])
        )
        self.between = nn.ModuleList(nn.Dropout2d(decoder_dropout) for _ in self.stages)
        self.last_stage = ConvModule(widths[0], channels, 3, padding=1, bias=False, **norm_act)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits.

        Args:
            inputs: Maps of the backbone, of which n of one size (B, C_i, h, w) are used.

        Returns:
            Logits (B, out_channels, h * 2 ** n, w * 2 ** n).
        """
        maps = self._transform_inputs(inputs)
        pyramid = [projection(x) for projection, x in zip(self.projections, maps, strict=True)]
        x = pyramid[-1]
        for stage, drop, skip in zip(self.stages, self.between, pyramid[-2::-1], strict=True):
            x = drop(stage(skip, x))
        size = (2 * x.shape[2], 2 * x.shape[3])
        return self.cls_seg(self.last_stage(resize(x, size=size, mode='bilinear', align_corners=self.align_corners)))
