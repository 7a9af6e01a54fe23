"""A network rebuilt from what its checkpoint says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..engine.checkpoint import Description, description_of, load_weights, read_checkpoint
from ..engine.component_check import find_registered
from ..errors import CheckpointError
from .windows import windows


class Predictor:
    """Turns images into class indexes.

    Args:
        model: A segmentor in evaluation mode.
        classes: Class names.
        palette: (r, g, b) of each class.
        bands: Numbers of the bands that the network was trained on, counting from 1; None for the image's own.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        bands: Sequence[int] | None = None,
    ) -> None:
        self.model: Any = model.eval()
        self.classes = tuple(classes)
        self.palette = [list(color) for color in palette]
        self.bands = None if bands is None else tuple(bands)

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = 'cpu', trust: bool = False) -> Predictor:
        """Rebuilds the network that a checkpoint describes, without running any code of the checkpoint.

        Args:
            path: Checkpoint written by this package's runner.
            device: Where to compute, such as 'cpu' or 'cuda:0'.
            trust: As of `read_checkpoint`.

        Raises:
            CheckpointError: It cannot be read, has no description, names parts that are not registered, or its
                weights do not fit.
        """
        checkpoint = read_checkpoint(path, trust=trust)
        description = description_of(checkpoint, path)
        if not description.classes:
            raise CheckpointError(f'{path}: its description names no classes')
        init_default_scope('mmseg')
        model_cfg = ConfigDict(description.config['model'])
        _require_registered(model_cfg, 'model', path)
        try:
            model = revert_sync_batchnorm(MODELS.build(model_cfg))
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f'{path}: its network cannot be built with this version of lale_mmseg; it was written by version '
                f'{description.version} ({error})'
            ) from None
        load_weights(model, checkpoint['state_dict'], path)
        if getattr(model.data_preprocessor, 'channels_last', False):
            model = model.to(memory_format=torch.channels_last)
        return cls(model.to(device), description.classes, description.palette, _bands_of(description))

    @torch.inference_mode()
    def logits(self, image: np.ndarray) -> Tensor:
        """Class logits of an image in one piece.

        Args:
            image: (H, W, bands) as `LoadBands` gives it: BGR for three 8-bit bands.

        Returns:
            (C, H, W) tensor on the model's device.
        """
        height, width = image.shape[:2]
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        batch = self.model.data_preprocessor(dict(inputs=[tensor]), False)
        shape = (height, width)
        meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, padding_size=[0, 0, 0, 0])
        return self.model.encode_decode(batch['inputs'], [meta])[0][:, :height, :width]

    def predict(
        self, image: np.ndarray, tile: int = 1024, overlap: int = 128, on_tile: Callable[[], None] | None = None
    ) -> np.ndarray:
        """Class indexes of an image of any size.

        Args:
            image: As of `logits`.
            tile: Images larger than this, in pixels, are predicted in windows of this side.
            overlap: Overlap of the windows, in pixels.
            on_tile: Called after each window.

        Returns:
            (H, W) uint8 array.
        """
        labels = np.empty(image.shape[:2], np.uint8)
        height, width = image.shape[:2]
        for window in windows(height, width, tile, overlap):
            logits = self.logits(image[window.rows, window.columns])
            labels[window.keep_rows, window.keep_columns] = self._classify(logits)[window.kept]
            if on_tile is not None:
                on_tile()
        return labels

    def _classify(self, logits: Tensor) -> np.ndarray:
        if logits.shape[0] == 1:
            return (logits[0].sigmoid() > self.model.decode_head.threshold).to(torch.uint8).cpu().numpy()
        return logits.argmax(dim=0).to(torch.uint8).cpu().numpy()


def _bands_of(description: Description) -> Sequence[int] | None:
    """The `bands` of the `LoadBands` that the network was tested with."""
    loader = description.config.get('test_dataloader') or description.config.get('val_dataloader') or {}
    pipeline = (loader.get('dataset') or {}).get('pipeline') or ()
    for step in pipeline:
        if isinstance(step, Mapping) and step.get('type') == 'LoadBands':
            return step.get('bands')
    return None


def _require_registered(node: Any, where: str, path: str | Path) -> None:
    """Refuses types that are not registered names.

    A registry resolves a dotted name by importing it, so an unchecked description could call any function.
    """
    for name, kind in _types(node, where):
        if not isinstance(kind, str) or not find_registered(kind):
            raise CheckpointError(
                f'{path}: {name} is {kind!r}, which is not registered; if it is a part of your own, test with its '
                'config (tools/test.py), or import it before'
            )


def _types(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        if 'type' in node:
            yield f'{where}.type', node['type']
        for name, value in node.items():
            yield from _types(value, f'{where}.{name}')
    elif isinstance(node, (list, tuple)):
        for position, value in enumerate(node):
            yield from _types(value, f'{where}.{position}')
