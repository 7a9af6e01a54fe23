"""mmsegmentation's ADE20K in our base config: classes without data, labels and scores."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS

from lale_mmseg.engine.config import complete_config
from lale_mmseg.evaluation import SegmentationMetric
from tests.support import REPO


@pytest.fixture(params=['512x512', '640x640'])
def cfg(request):
    return Config.fromfile(next((REPO / 'configs/lrformer').glob(f'lrformer_*_ade20k-{request.param}.py')))


@pytest.fixture
def ade_root(tmp_path):
    """One image to train and one to validate, of odd sizes; label 0 is no class, class i has label i + 1."""
    rng = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (tmp_path / kind / split).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'images' / split / 'a.jpg'), rng.integers(0, 255, (60, 85, 3), np.uint8))
        mask = np.repeat(np.array([[0, 1, 150, 3, 3]], np.uint8), 17, axis=1).repeat(60, axis=0)
        cv2.imwrite(str(tmp_path / 'annotations' / split / 'a.png'), mask)
    return tmp_path


def test_the_number_of_classes_is_known_without_the_data(cfg):
    assert complete_config(cfg).model.decode_head.num_classes == 150


def test_pipelines_crop_and_keep_the_size_of_the_annotation(cfg, ade_root):
    cfg.data_root = str(ade_root)
    cfg = complete_config(cfg)
    side = cfg.crop_size[0]
    train = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert max(train['inputs'].shape[1:]) <= side
    assert set(train['data_samples'].gt_sem_seg.data.unique().tolist()) <= {0, 2, 149, 255}
    test = DATASETS.build(cfg.test_dataloader.dataset)[0]
    assert min(test['inputs'].shape[1:]) == side
    label = test['data_samples'].gt_sem_seg.data
    assert label.shape == (1, 60, 85)
    assert label[0, 0, ::17].tolist() == [255, 0, 149, 2, 2]


def test_segmentation_metric_scores_it(cfg, ade_root):
    cfg.data_root = str(ade_root)
    dataset = DATASETS.build(complete_config(cfg).val_dataloader.dataset)
    metric = SegmentationMetric()
    metric.dataset_meta = dataset.metainfo
    batch = pseudo_collate([dataset[0]])
    sample = batch['data_samples'][0].to_dict()
    label = sample['gt_sem_seg']['data']
    prediction = label.clone().fill_(2)
    metric.process(batch, [{**sample, 'pred_sem_seg': dict(data=prediction)}])
    scores = metric.evaluate(1)
    # Of the four columns that are a class, the last two are class 2.
    assert scores['OA'] == pytest.approx(50.0)
