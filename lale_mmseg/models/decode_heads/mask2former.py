"""Mask2Former's head for semantic segmentation, with the number of classes in one place.

Masked-attention Mask Transformer for Universal Image Segmentation (arXiv 2112.01527).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import ConfigDict
from mmseg.models.decode_heads.mask2former_head import Mask2FormerHead
from mmseg.registry import MODELS
from torch import Tensor

from ...errors import ConfigError


@MODELS.register_module()
class SemanticMask2FormerHead(Mask2FormerHead):
    """mmsegmentation's `Mask2FormerHead`, which needs mmdet, with these differences.

    * The class weights of the classification loss follow from `num_classes`, so that a config sets it once or leaves it
      to the data.
    * Unknown arguments are rejected; the parent ignores them.
    * Sliding-window inference works; the parent resizes the logits of a window to the size of the whole image.

    Args:
        num_classes: Number of classes, 2 or more.
        in_channels: Number of channels of each feature map, finest first.
        pixel_decoder: Config of the pixel decoder, whose widths follow from this head.
        transformer_decoder: Config of the transformer decoder.
        loss_cls: Config of the classification loss, without `class_weight`.
        loss_mask: Config of the cross-entropy of the masks.
        loss_dice: Config of the Dice loss of the masks.
        feat_channels: Number of channels of the pixel decoder and of the queries.
        out_channels: Number of channels of the mask embeddings.
        num_queries: Number of queries, each of which predicts one class and one mask.
        num_transformer_feat_level: Number of feature maps that the transformer decoder attends to in turn.
        no_object_weight: Weight of queries without an object in the classification loss, relative to classes.
        positional_encoding: Config of the sine encoding of pixel positions.
        train_cfg: Point sampling and matching of queries to masks; required for training.
        align_corners: Whether resizing of logits to the size of the image aligns corners.
        ignore_index: Label of pixels to ignore.
        init_cfg: Initialization of `mmengine.model.BaseModule`.

    Raises:
        ConfigError: `num_classes` is less than 2, or `loss_cls` has class weights.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        pixel_decoder: Mapping[str, Any],
        transformer_decoder: Mapping[str, Any],
        loss_cls: Mapping[str, Any],
        loss_mask: Mapping[str, Any],
        loss_dice: Mapping[str, Any],
        *,
        feat_channels: int = 256,
        out_channels: int = 256,
        num_queries: int = 100,
        num_transformer_feat_level: int = 3,
        no_object_weight: float = 0.1,
        positional_encoding: Mapping[str, Any] = dict(num_feats=128, normalize=True),
        train_cfg: Mapping[str, Any] | None = None,
        align_corners: bool = False,
        ignore_index: int = 255,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if num_classes < 2:
            raise ConfigError(f'num_classes={num_classes}: expected at least 2 classes, with the background among them')
        if 'class_weight' in loss_cls:
            raise ConfigError('loss_cls.class_weight follows from num_classes and no_object_weight; remove it')
        weights = [1.0] * num_classes + [no_object_weight]
        super().__init__(
            num_classes=num_classes,
            align_corners=align_corners,
            ignore_index=ignore_index,
            num_things_classes=num_classes,
            num_stuff_classes=0,
            in_channels=list(in_channels),
            feat_channels=feat_channels,
            out_channels=out_channels,
            num_queries=num_queries,
            num_transformer_feat_level=num_transformer_feat_level,
            pixel_decoder=ConfigDict(pixel_decoder),
            transformer_decoder=ConfigDict(transformer_decoder),
            positional_encoding=ConfigDict(positional_encoding),
            loss_cls=ConfigDict(loss_cls, class_weight=weights),
            loss_mask=ConfigDict(loss_mask),
            loss_dice=ConfigDict(loss_dice),
            train_cfg=None if train_cfg is None else ConfigDict(train_cfg),
            init_cfg=init_cfg,
        )
        self.in_channels = list(in_channels)

    def forward(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[Any] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Computes classes and masks of all queries.

        Args:
            x: Feature maps of the backbone, (B, C_i, H_i, W_i), finest first.
            batch_data_samples: Unused; part of the parent's interface.

        Returns:
            For the initial queries and after each decoder layer: class logits (B, queries, num_classes + 1), and mask
            logits (B, queries, H_0, W_0).
        """
        return super().forward(x, batch_data_samples)

    def predict(self, x: Sequence[Tensor], batch_img_metas: Sequence[dict], test_cfg: Any) -> Tensor:
        """Computes class scores at the size of the input.

        Args:
            x: Feature maps of the backbone, (B, C_i, H_i, W_i), finest first.
            batch_img_metas: Meta information of each image: `img_shape`, and `pad_shape` where it was padded.
            test_cfg: `test_cfg` of the segmentor; its mode shows whether `x` is a sliding window.

        Returns:
            Scores (B, num_classes, H, W).
        """
        # The parent resizes to `pad_shape`, which in a sliding window is still the size of the whole image; `img_shape`
        # is that of the window.
        sliding = (test_cfg or {}).get('mode') == 'slide'
        sizes = [meta['img_shape'] if sliding else meta.get('pad_shape', meta['img_shape']) for meta in batch_img_metas]
        metas = [{**meta, 'pad_shape': tuple(size[:2])} for meta, size in zip(batch_img_metas, sizes, strict=True)]
        return super().predict(x, metas, test_cfg)
