"""BodyEdgeHead: U-shaped decoding (UED), body-edge separation (BES) and spatial fusion (SFM) in one head.

The light body and edge network has GhostNet as its backbone and `UShapedDecoder` as its decoder. Separating bodies from
edges by a learned flow comes from DecoupleSegNets (arXiv 2007.10035). Difference: any backbone and decoder, such as
LALE and `MLPDecoder`.
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
    """All outputs of a BodyEdgeHead, at the stride of the finest feature map; disabled ones are None.

    Attributes:
        segmentation: Class logits (B, num_classes, H, W).
        body: Class logits of the body branch (B, num_classes, H, W).
        edge: Edge logits (B, 1, H, W).
        score: Weight of the body in the fusion (B, channels, H, W).
    """

    segmentation: Tensor
    body: Tensor | None = None
    edge: Tensor | None = None
    score: Tensor | None = None


@MODELS.register_module()
class BodyEdgeHead(BaseDecodeHead):
    """Decodes all feature maps to the finest stride, separates body and edge, fuses them and classifies each pixel.

    `forward` returns the class logits at that stride, `outputs` those of all branches. Training needs the edge targets
    of the transform `LabelEdges`, unless `separate_body_edge` is False.

    Args:
        in_channels: Number of channels of each feature map, finest first.
        channels: Number of channels after decoding, and of all branches.
        in_index: Index of each feature map in the backbone's output.
        decoder: Config of a decoder with an attribute `out_channels`; built with `in_channels`, and with `norm_cfg` of
            this head unless it sets its own.
        separate_body_edge: Whether to separate body and edge (BES).
        spatial_fusion: Whether to fuse both by learned weights (SFM) instead of adding them.
        loss_body: Loss of the body's class logits; used with `separate_body_edge`.
        loss_edge: Loss of the edge logits; used with `separate_body_edge`.
        loss_decode: Loss of the class logits, or a list of losses; the only one that a `sampler` applies to.
        norm_cfg: Norm of the convolutions.
        act_cfg: Activation of the convolutions.
        dropout_ratio: Channel dropout rate before the classifier.
        align_corners: Whether bilinear resizing of logits aligns corners.
        init_cfg: Initialization; torch's default if None.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...).

    Raises:
        ConfigError: `spatial_fusion` without `separate_body_edge`, or a single output channel.
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
        if spatial_fusion and not separate_body_edge:
            raise ConfigError(
                'spatial_fusion=True requires separate_body_edge=True, as it fuses body and edge; set '
                'separate_body_edge=True or spatial_fusion=False'
            )
        if kwargs.get('out_channels') == 1 or kwargs.get('num_classes') == 1:
            raise ConfigError(
                'BodyEdgeHead does not support a single output channel, as its body loss compares classes; set '
                'num_classes=2 and remove out_channels'
            )
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
            # The published classifier has a bias only if there are branches.
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
        """Computes class logits at the stride of the finest feature map.

        Args:
            inputs: Feature maps of the backbone, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, num_classes, H_0, W_0).
        """
        return self._branches(inputs)[0].segmentation

    def outputs(self, inputs: Sequence[Tensor]) -> BodyEdgeOutputs:
        """Computes the outputs of all branches.

        Args:
            inputs: Feature maps of the backbone, (B, C_i, H_i, W_i).
        """
        outputs, body, edge = self._branches(inputs)
        if body is None or edge is None:
            return outputs
        return outputs._replace(body=self.body_head(body), edge=self.edge_head(edge))

    def _branches(self, inputs: Sequence[Tensor]) -> tuple[BodyEdgeOutputs, Tensor | None, Tensor | None]:
        """Outputs that a prediction needs, and feature maps of body and edge, whose heads only the losses need."""
        x = self.refine(self.decoder(self._transform_inputs(inputs)))  # (B, channels, H_0, W_0)
        if not self.separate_body_edge:
            return BodyEdgeOutputs(self.cls_seg(x)), None, None
        body, edge = self.separation(self.features(x))  # each (B, channels, H_0, W_0)
        body, edge = self.body_branch(body), self.edge_branch(edge)
        fused, score = (body + edge, None) if self.fusion is None else self.fusion(body, edge)
        return BodyEdgeOutputs(self.cls_seg(self.seg_convs(fused)), score=score), body, edge

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: SampleList, train_cfg: ConfigType) -> dict:
        """Computes the losses of all branches, and the accuracy `acc_seg`.

        Args:
            inputs: Feature maps of the backbone, (B, C_i, H_i, W_i).
            batch_data_samples: Samples with `gt_sem_seg` and, for body and edge, `gt_edge_map`.
            train_cfg: Unused.

        Raises:
            ConfigError: Samples have no edge targets, or edge targets of another size than their labels.
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
                f'BodyEdgeHead: edge targets have size {tuple(edges.shape[1:])} (height, width), labels '
                f'{tuple(labels.shape[1:])}; put dict(type="LabelEdges") after all steps that change the size'
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
            'BodyEdgeHead: the samples have no edge targets; add dict(type="LabelEdges") to '
            'train_dataloader.dataset.pipeline before PackSegInputs, or set separate_body_edge=False'
        )
    return torch.cat([sample.gt_edge_map.data for sample in samples], dim=0)
