"""BodyEdgeHead: U-shaped decoding (UED), body-edge separation (BES) and spatial fusion (SFM) in one head.

The light network of this family has GhostNet as its backbone and `UShapedDecoder` as its decoder; over any other
backbone and decoder, such as LALE and `MLPDecoder`, separation and fusion are an addition. The idea of separating
bodies from edges by a learned flow is that of DecoupleSegNets (arXiv 2007.10035).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList
from torch import Tensor, nn

from ...errors import ConfigError
from ..layers import BodyEdgeSeparation, SpatialFusion


class BodyEdgeOutputs(NamedTuple):
    """All that a BodyEdgeHead computes, at the stride of the finest map; what is switched off is None.

    Attributes:
        segmentation: Class logits (B, num_classes, H, W).
        body: Class logits from the body alone (B, num_classes, H, W).
        edge: Logits of being an edge (B, 1, H, W).
        score: Weight of the body in the fusion (B, channels, H, W).
    """

    segmentation: Tensor
    body: Tensor | None = None
    edge: Tensor | None = None
    score: Tensor | None = None


@MODELS.register_module()
class BodyEdgeHead(BaseDecodeHead):
    """Decodes all maps to the finest stride, separates body and edge, fuses them and classifies each pixel.

    Logits of classes at that stride come from `forward`, those of all branches from `outputs`. Training needs the edge
    targets that the transform `LaplacianEdges` makes, unless `separate_body_edge` is off.

    Args:
        in_channels: Width of each map, finest first.
        channels: Width of the map after decoding, and of all branches.
        in_index: Position of each map in the backbone's output.
        decoder: Config of the decoder, with an `out_channels` of its own; gets `in_channels`, and this head's
            `norm_cfg` where it does not name one.
        separate_body_edge: Whether the body is told from the edge (BES).
        spatial_fusion: Whether both are fused by learned weights (SFM), or added.
        loss_body: Loss of the body's class logits, without effect unless `separate_body_edge`.
        loss_edge: Loss of the edge logits, likewise.
        loss_decode: Loss of the class logits, or a list of them; a `sampler` chooses pixels for it alone.
        norm_cfg: Norm of the convolutions.
        act_cfg: Activation of the convolutions.
        dropout_ratio: Probability to drop a channel of the last map in training.
        align_corners: Of the bilinear resizing of logits.
        init_cfg: Initialization; torch's own by default.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `ignore_index`, `sampler`, ...), which rejects
            unknown ones.

    Raises:
        ConfigError: `in_channels` and `in_index` differ in length, or `decoder` has others; `spatial_fusion` without
            `separate_body_edge`; one output channel for two classes; or a `conv_cfg`, which nothing here would follow.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (24, 40, 112, 160),
        channels: int = 24,
        *,
        in_index: Sequence[int] = (0, 1, 2, 3),
        decoder: dict = dict(type='mmseg.UShapedDecoder'),
        separate_body_edge: bool = True,
        spatial_fusion: bool = True,
        loss_body: dict = dict(type='mmseg.BoundaryRelaxationLoss'),
        loss_edge: dict = dict(type='mmseg.BinaryEdgeLoss'),
        loss_decode: dict | Sequence[dict] = dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True),
        norm_cfg: dict = dict(type='SyncBN'),
        act_cfg: dict = dict(type='ReLU'),
        dropout_ratio: float = 0.0,
        align_corners: bool = True,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if len(in_channels) != len(in_index):
            raise ConfigError(f'{len(in_channels)} in_channels for {len(in_index)} entries of in_index')
        if spatial_fusion and not separate_body_edge:
            raise ConfigError(
                'spatial_fusion=True with separate_body_edge=False: it fuses body and edge; set '
                'separate_body_edge=True, or spatial_fusion=False'
            )
        if kwargs.get('out_channels') == 1 or kwargs.get('num_classes') == 1:
            raise ConfigError(
                'BodyEdgeHead with one output channel: its body loss compares classes; set num_classes=2 and leave '
                'out_channels out'
            )
        if kwargs.get('conv_cfg') is not None:
            raise ConfigError(f'conv_cfg={kwargs["conv_cfg"]!r}: BodyEdgeHead has plain convolutions; leave it out')
        if 'in_channels' in decoder:
            raise ConfigError(f'decoder.in_channels={decoder["in_channels"]}: set in_channels of the head alone')
        super().__init__(
            in_channels=list(in_channels),
            channels=channels,
            in_index=list(in_index),
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            loss_decode=loss_decode,
            init_cfg=init_cfg,
            **kwargs,
        )
        self.separate_body_edge = separate_body_edge

        def conv(inputs: int) -> ConvModule:
            return ConvModule(inputs, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)

        self.decoder = MODELS.build({'norm_cfg': norm_cfg, **decoder, 'in_channels': list(in_channels)})
        self.refine = nn.Sequential(conv(self.decoder.out_channels), conv(channels))
        if not separate_body_edge:
            # The published classifier has no bias here, and one behind the branches.
            self.conv_seg = nn.Conv2d(channels, self.out_channels, 1, bias=False)
            return

        def branch() -> nn.Sequential:
            return nn.Sequential(conv(channels), nn.Conv2d(channels, channels, 3, padding=1))

        self.features = nn.Conv2d(channels, channels, 1, bias=False)
        self.separation = BodyEdgeSeparation(channels, norm_cfg)
        self.body_branch, self.edge_branch = branch(), branch()
        self.fusion = SpatialFusion(channels) if spatial_fusion else None
        self.seg_convs = nn.Sequential(conv(channels), conv(channels))  # then conv_seg
        self.body_head = nn.Sequential(conv(channels), nn.Conv2d(channels, self.out_channels, 1))
        self.edge_head = nn.Sequential(conv(channels), nn.Conv2d(channels, 1, 1))
        self.loss_body = MODELS.build(loss_body)
        self.loss_edge = MODELS.build(loss_edge)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits at the stride of the finest map.

        Args:
            inputs: Maps of the backbone, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, num_classes, H_0, W_0).
        """
        return self._branches(inputs)[0].segmentation

    def outputs(self, inputs: Sequence[Tensor]) -> BodyEdgeOutputs:
        """Computes the outputs of all branches.

        Args:
            inputs: Maps of the backbone, (B, C_i, H_i, W_i).
        """
        outputs, body, edge = self._branches(inputs)
        if body is None or edge is None:
            return outputs
        return outputs._replace(body=self.body_head(body), edge=self.edge_head(edge))

    def _branches(self, inputs: Sequence[Tensor]) -> tuple[BodyEdgeOutputs, Tensor | None, Tensor | None]:
        """What a prediction needs, and the maps that only the losses of body and edge need a head for."""
        x = self.refine(self.decoder(self._transform_inputs(inputs)))  # (B, channels, H_0, W_0)
        if not self.separate_body_edge:
            return BodyEdgeOutputs(self.cls_seg(x)), None, None
        body, edge = self.separation(self.features(x))
        body, edge = self.body_branch(body), self.edge_branch(edge)
        fused, score = (body + edge, None) if self.fusion is None else self.fusion(body, edge)
        return BodyEdgeOutputs(self.cls_seg(self.seg_convs(fused)), score=score), body, edge

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: SampleList, train_cfg: ConfigType) -> dict:
        """Computes the losses of all branches, and the accuracy `acc_seg`.

        Args:
            inputs: Maps of the backbone, (B, C_i, H_i, W_i).
            batch_data_samples: Samples with `gt_sem_seg` and, for body and edge, `gt_edge_map`.
            train_cfg: Not used.

        Raises:
            ConfigError: Samples have no edge targets, or of another size than their labels.
        """
        outputs = self.outputs(inputs)
        # Logits in float32: losses sum over millions of pixels.
        losses = self.loss_by_feat(outputs.segmentation.float(), batch_data_samples)
        if outputs.body is None or outputs.edge is None:
            return losses
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        edges = _edge_targets(batch_data_samples)
        if edges.shape != labels.shape:
            raise ConfigError(
                f'BodyEdgeHead: edge targets of {tuple(edges.shape[1:])} pixels (height, width), labels of '
                f'{tuple(labels.shape[1:])}; put dict(type="LaplacianEdges") behind all steps that change the size'
            )
        for logits, loss, target in ((outputs.body, self.loss_body, labels), (outputs.edge, self.loss_edge, edges)):
            logits = F.interpolate(
                logits.float(), size=target.shape[1:], mode='bilinear', align_corners=self.align_corners
            )
            value = loss(logits, target, ignore_index=self.ignore_index)
            losses[loss.loss_name] = losses.get(loss.loss_name, 0) + value
        return losses


def _edge_targets(samples: SampleList) -> Tensor:
    """Edge targets (B, H, W): 1, 0, and the label of ignored pixels."""
    if any('gt_edge_map' not in sample for sample in samples):
        raise ConfigError(
            'BodyEdgeHead: the samples have no edge targets; put dict(type="LaplacianEdges") into '
            'train_dataloader.dataset.pipeline, in front of PackSegInputs, or set separate_body_edge=False'
        )
    return torch.cat([sample.gt_edge_map.data for sample in samples], dim=0)
