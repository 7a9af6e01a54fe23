"""A network rebuilt from what its checkpoint says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..engine.checkpoint import Description, description_of, load_weights, read_checkpoint, rename_weights
from ..errors import CheckpointError
from .harmless import refuse_unsafe_loading, require_harmless
from .windows import windows

#: Steps of a test pipeline that prediction does itself, or that concern masks.
_LOADING_STEPS = (
    *('LoadBands', 'LoadImageFromFile', 'PackSegInputs'),
    *('LoadPaletteMask', 'LoadLabels', 'LoadBinaryLabels', 'LoadAnnotations'),
)


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
        #: Steps of the test pipeline, such as Resize, that are not repeated here.
        self.other_steps: tuple[str, ...] = ()

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
        require_harmless(model_cfg, path)
        try:
            with refuse_unsafe_loading():
                model = revert_sync_batchnorm(MODELS.build(model_cfg))
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f'{path}: its network cannot be built with this version of lale_mmseg; it was written by version '
                f'{description.version} ({error})'
            ) from None
        load_weights(model, rename_weights(checkpoint['state_dict'], [(r'^module\.', '')]), path)
        if getattr(model.data_preprocessor, 'channels_last', False):
            model = model.to(memory_format=torch.channels_last)
        pipeline = _test_pipeline(description)
        bands = next((step.get('bands') for step in pipeline if _step_name(step) == 'LoadBands'), None)
        predictor = cls(model.to(device), description.classes, description.palette, bands)
        predictor.other_steps = tuple(name for name in map(_step_name, pipeline) if name not in _LOADING_STEPS)
        return predictor

    @torch.inference_mode()
    def logits(self, image: np.ndarray) -> Tensor:
        """Class logits of an image in one piece.

        Args:
            image: (H, W, bands) as `LoadBands` gives it: BGR for three 8-bit bands.

        Returns:
            (C, H, W) tensor on the model's device.
        """
        height, width = image.shape[:2]
        inputs, meta = self.prepare(image)
        return self.model.inference(inputs, [meta])[0][:, :height, :width]

    def prepare(self, image: np.ndarray) -> tuple[Tensor, dict[str, Any]]:
        """An image as the network takes it.

        Args:
            image: As of `logits`.

        Returns:
            Normalized batch (1, bands, H', W'), maybe padded below and to the right, and its meta information, which
            calls the padded size that of the image: decode heads resize to what they are told is the image.
        """
        size = (image.shape[0], image.shape[1])
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
        inputs = self.model.data_preprocessor(dict(inputs=[tensor], data_samples=[sample]), False)['inputs']
        padded = tuple(inputs.shape[2:])
        return inputs, dict(img_shape=padded, ori_shape=padded, pad_shape=padded, padding_size=[0, 0, 0, 0])

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


def _test_pipeline(description: Description) -> list[Mapping]:
    """Steps of the pipeline that the network was tested with, that of the first dataset in wrappers."""
    loader = description.config.get('test_dataloader') or description.config.get('val_dataloader') or {}
    dataset = loader.get('dataset') or {}
    while 'dataset' in dataset or dataset.get('datasets'):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return [step for step in dataset.get('pipeline') or () if isinstance(step, Mapping)]


def _step_name(step: Mapping) -> str:
    return str(step.get('type')).rpartition('.')[2]
