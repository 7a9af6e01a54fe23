"""Scores of tiles and cities, and their means over tiles, computed by hand."""

import json

import pandas as pd
import pytest
import torch

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import SegmentationMetric

CLASSES = ('background', 'building')
PATTERN = r'(?P<tile>(?P<city>[a-z-]+)\d+)(_.*)?'


def sample(name, label, pred):
    maps = [torch.tensor([values], dtype=torch.long)[None] for values in (label, pred)]
    return dict(img_path=f'/img/{name}.png', gt_sem_seg=dict(data=maps[0]), pred_sem_seg=dict(data=maps[1]))


#: Pixels of label and prediction by image; 255 is ignored.
IMAGES = [
    # austin1: windows [1 1 0 0] and [1 0 0 0]: hits 2, labelled 3, predicted 3, so IoU 2/4, F1 4/6, OA 6/8.
    sample('austin1_0', [1, 1, 0, 0], [1, 0, 1, 0]),
    sample('austin10_0', [0, 0, 0, 255], [0, 0, 0, 1]),  # no building in either: no IoU; OA 100
    sample('austin2', [0, 0, 0, 0], [1, 0, 0, 0]),  # predicted, not labelled: IoU 0, OA 75
    sample('austin1_1', [1, 0, 0, 0], [1, 0, 0, 0]),
    sample('tyrol-w3', [1, 1, 1, 1], [1, 1, 1, 0]),  # IoU 3/4, F1 6/7, OA 75
]


def evaluated(images, folder=None, classes=CLASSES, meta=None, **options):
    output_dir = None if folder is None else str(folder)
    metric = SegmentationMetric(per_tile=True, output_dir=output_dir, **options)
    metric.dataset_meta = dict(classes=classes) | (meta or {})
    metric.process(None, images)
    return metric.evaluate(len(images))


def test_windows_are_summed_by_tile_and_tiles_by_city(tmp_path):
    result = evaluated(IMAGES, tmp_path, meta=dict(tile_pattern=PATTERN))
    read = json.loads((tmp_path / 'metrics.json').read_text())
    assert read['tile_classes'] == ['building']
    assert read['tiles'] == {
        'austin1': dict(
            city='austin', IoU=50, F1=pytest.approx(200 / 3), OA=75, label_pixels=3, predicted_pixels=3, pixels=8
        ),
        'austin2': dict(city='austin', IoU=0, F1=0, OA=75, label_pixels=0, predicted_pixels=1, pixels=4),
        'austin10': dict(city='austin', IoU=None, F1=None, OA=100, label_pixels=0, predicted_pixels=0, pixels=3),
        'tyrol-w3': dict(
            city='tyrol-w', IoU=75, F1=pytest.approx(600 / 7), OA=75, label_pixels=4, predicted_pixels=3, pixels=4
        ),
    }
    # austin: hits 2, labelled 3, predicted 4, right 12 of 15.
    assert result['IoU_city/austin'] == read['cities']['austin']['IoU'] == pytest.approx(40)
    assert result['F1_city/austin'] == pytest.approx(400 / 7)
    assert result['OA_city/austin'] == pytest.approx(80)
    assert read['cities']['austin']['tiles'] == 3
    # Means over the three tiles with building; pooled scores (hits 5, labelled 7, predicted 7) differ.
    assert result['mean_tile_IoU'] == pytest.approx((50 + 0 + 75) / 3)
    assert result['mean_tile_F1'] == pytest.approx((200 / 3 + 0 + 600 / 7) / 3)
    assert result['worst_tile_IoU'] == 0
    assert result['IoU/building'] == pytest.approx(500 / 9)
    tiles = {name: value for name, value in result.items() if name.startswith('tile_IoU/')}
    assert tiles == {'tile_IoU/austin1': 50, 'tile_IoU/austin2': 0, 'tile_IoU/tyrol-w3': 75}
    assert pd.read_csv(tmp_path / 'per_tile.csv')['tile'].tolist() == ['austin1', 'austin2', 'austin10', 'tyrol-w3']
    assert pd.read_csv(tmp_path / 'per_city.csv')['IoU'].tolist() == pytest.approx([40, 75])


def test_tiles_of_several_classes_are_means_over_the_scored_classes_that_occur(tmp_path):
    images = [
        # a: IoU 1/2, b: IoU 1/2 (2 hits of 4); c is absent, d is not scored.
        sample('x', [0, 0, 1, 1, 1], [0, 1, 1, 1, 3]),
        sample('y', [2, 2, 3, 3, 3], [2, 2, 3, 3, 3]),  # c: 100
    ]
    result = evaluated(images, tmp_path, classes=('a', 'b', 'c', 'd'), score_classes=['a', 'b', 'c'])
    assert result['tile_IoU/x'] == pytest.approx(50)
    # F1: a 2/3, b 4/6.
    assert result['mean_tile_F1'] == pytest.approx((200 / 3 + 100) / 2)
    assert result['mean_tile_IoU'] == pytest.approx((50 + 100) / 2)
    tile = pd.read_csv(tmp_path / 'per_tile.csv', index_col='tile').loc['x']
    assert (tile['IoU/a'], tile['IoU/b'], pd.isna(tile['IoU/c'])) == (50, 50, True)


def test_without_a_pattern_every_image_is_a_tile(tmp_path):
    result = evaluated(IMAGES, tmp_path)
    tiles = pd.read_csv(tmp_path / 'per_tile.csv')['tile'].tolist()
    assert tiles == ['austin1_0', 'austin1_1', 'austin2', 'austin10_0', 'tyrol-w3']
    assert not [name for name in result if 'city' in name]


def test_images_of_one_name_stay_two_tiles():
    images = [{**sample('x', [1, 1], pred), 'img_path': f'/{f}/x.png'} for f, pred in (('a', [1, 1]), ('b', [1, 0]))]
    result = evaluated(images)
    assert (result['tile_IoU//a/x.png'], result['tile_IoU//b/x.png']) == (100, 50)


def test_the_argument_overrides_the_pattern_of_the_dataset(tmp_path):
    evaluated(IMAGES, tmp_path, meta=dict(tile_pattern=PATTERN), tile_pattern=r'(?P<tile>[a-z]).*')
    assert pd.read_csv(tmp_path / 'per_tile.csv')['tile'].tolist() == ['a', 't']


@pytest.mark.parametrize(
    ('pattern', 'error', 'message'),
    [
        (PATTERN, DataError, r'/img/12\.png: the file name does not match tile_pattern'),
        ('(', ConfigError, 'not a regular expression'),
        ('[a-z]+', ConfigError, r'expected a group \(\?P<tile>'),
    ],
)
def test_bad_patterns_and_names(pattern, error, message):
    with pytest.raises(error, match=message):
        evaluated([sample('12', [1], [1])], tile_pattern=pattern)
