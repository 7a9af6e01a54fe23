"""Scores of tiles and cities, computed by hand."""

import csv
import json
import os
import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmengine.dataset import DefaultSampler

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import TileSegmentationMetric

CLASSES = ('background', 'building')
PATTERN = r'(?P<tile>(?P<city>[a-z-]+)\d+)(_.*)?'


def sample(name, label, pred):
    rows = [torch.tensor([values], dtype=torch.long)[None] for values in (label, pred)]
    return dict(img_path=f'/img/{name}.png', gt_sem_seg=dict(data=rows[0]), pred_sem_seg=dict(data=rows[1]))


#: Pixels of label and prediction by image; 255 is ignored.
IMAGES = [
    # austin1: windows [1 1 0 0] and [1 0 0 0]: hits 2, labelled 3, predicted 3, so IoU 2/4, F1 4/6, OA 6/8.
    sample('austin1_0', [1, 1, 0, 0], [1, 0, 1, 0]),
    sample('austin10_0', [0, 0, 0, 255], [0, 0, 0, 1]),  # no building in either: no IoU; OA 100
    sample('austin2', [0, 0, 0, 0], [1, 0, 0, 0]),  # predicted, not labelled: IoU 0, OA 75
    sample('austin1_1', [1, 0, 0, 0], [1, 0, 0, 0]),
    sample('tyrol-w3', [1, 1, 1, 1], [1, 1, 1, 0]),  # IoU 75, F1 6/7, OA 75
]


def metric_of(images=IMAGES, meta=None, **options):
    metric = TileSegmentationMetric(score_classes=[1], **options)
    metric.dataset_meta = dict(classes=CLASSES, tile_pattern=PATTERN) | (meta or {})
    for image in images:
        metric.process(None, [image])
    return metric, metric.evaluate(len(images))


def test_windows_are_summed_by_tile_and_tiles_by_city():
    metric, result = metric_of()
    tiles = metric.report.tiles
    assert list(tiles) == ['austin1', 'austin2', 'austin10', 'tyrol-w3']
    assert tiles['austin1'].to_dict() == dict(
        city='austin', IoU=50, F1=pytest.approx(200 / 3), OA=75, label_pixels=3, predicted_pixels=3, pixels=8
    )
    assert tiles['austin2'].to_dict() == dict(
        city='austin', IoU=0, F1=0, OA=75, label_pixels=0, predicted_pixels=1, pixels=4
    )
    assert tiles['austin10'].to_dict() == dict(
        city='austin', IoU=None, F1=None, OA=100, label_pixels=0, predicted_pixels=0, pixels=3
    )
    # austin: hits 2, labelled 3, predicted 4, right 12 of 15.
    assert result['IoU_city/austin'] == pytest.approx(40)
    assert result['F1_city/austin'] == pytest.approx(400 / 7)
    assert result['OA_city/austin'] == pytest.approx(80)
    assert result['IoU_city/tyrol-w'] == 75
    assert result['worst_tile_IoU'] == 0
    assert metric.report.worst_tile == ('austin2', 0)
    assert result['tile_IoU_mean'] == pytest.approx(125 / 3)
    # All: hits 5, labelled 7, predicted 7.
    assert result['mIoU'] == result['IoU/building'] == pytest.approx(500 / 9)
    assert all(isinstance(value, float | int) for value in result.values())


def test_files_hold_tiles_and_cities(tmp_path):
    metric_of(output_dir=str(tmp_path))
    with open(tmp_path / 'per_tile.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['tile', 'city', 'IoU', 'F1', 'OA', 'label_pixels', 'predicted_pixels', 'pixels']
    assert [(row['tile'], row['IoU']) for row in rows] == [
        ('austin1', '50.0'), ('austin2', '0.0'), ('austin10', ''), ('tyrol-w3', '75.0'),
    ]  # fmt: skip
    lines = (tmp_path / 'per_city.csv').read_text().splitlines()
    assert lines[0] == 'city,tiles,IoU,F1,OA,label_pixels,predicted_pixels,pixels'
    assert lines[1].startswith('austin,3,40.0,57.14')
    assert lines[2].startswith('tyrol-w,1,75.0,85.71')
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['tile_class'] == 'building'
    assert metrics['tiles']['austin10']['IoU'] is None
    assert metrics['cities']['austin']['tiles'] == 3
    assert metrics['worst_tile'] == dict(tile='austin2', IoU=0)
    assert (tmp_path / 'per_class.csv').is_file()


def test_the_text_names_cities_and_the_three_worst_tiles():
    images = [*IMAGES, sample('vienna7', [1, 1, 1, 1], [1, 1, 0, 0]), sample('vienna8', [1], [1])]
    text = metric_of(images)[0].report.text()
    assert 'worst of 5 tiles by IoU of building: austin2 0.00, austin1 50.00, vienna7 50.00' in text
    assert '| austin  |     3 |        40.00 |       57.14 | 80.00 |' in text
    assert 'mIoU' in text


def test_without_a_pattern_every_image_is_a_tile():
    metric = TileSegmentationMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    for image in IMAGES:
        metric.process(None, [image])
    result = metric.evaluate(len(IMAGES))
    assert list(metric.report.tiles) == ['austin1_0', 'austin1_1', 'austin2', 'austin10_0', 'tyrol-w3']
    assert metric.report.cities == {}
    assert 'city' not in metric.report.text()
    assert not [name for name in result if 'city' in name]


def test_images_of_one_name_stay_two_tiles():
    metric = TileSegmentationMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    for folder, pred in (('a', [1, 1]), ('b', [1, 0])):
        metric.process(None, [{**sample('x', [1, 1], pred), 'img_path': f'/{folder}/x.png'}])
    metric.evaluate(2)
    assert {tile: score.iou for tile, score in metric.report.tiles.items()} == {'/a/x.png': 100, '/b/x.png': 50}


def test_the_class_and_pattern_of_arguments_come_first():
    metric, result = metric_of(class_name='background', tile_pattern=r'(?P<tile>[a-z]).*')
    # The four images of austin: 12 labelled background (one pixel is ignored), 11 predicted so, of which 10 rightly.
    assert metric.report.tiles['a'].label_pixels == 12
    assert metric.report.tiles['a'].iou == pytest.approx(100 * 10 / 13)
    assert metric.report.cities == {}
    assert result['mIoU'] == pytest.approx(500 / 9)  # still that of building


def test_a_second_evaluation_starts_anew():
    metric, first = metric_of()
    for image in IMAGES:
        metric.process(None, [image])
    assert metric.evaluate(len(IMAGES)) == first


@pytest.mark.parametrize(
    ('options', 'image', 'error', 'message'),
    [
        (dict(class_name='roof'), IMAGES[0], ConfigError, r"class_name='roof' is not a class .* background, building"),
        ({}, sample('12', [1], [1]), DataError, r'/img/12\.png: its name does not match tile_pattern'),
        ({}, {**IMAGES[0], 'img_path': None}, DataError, 'no img_path'),
    ],
)
def test_what_cannot_be_scored_is_an_error(options, image, error, message):
    with pytest.raises(error, match=message):
        metric_of([image], **options)


@pytest.mark.parametrize(('pattern', 'message'), [('(', 'not a regular expression'), ('[a-z]+', 'no group')])
def test_a_bad_pattern_is_an_error(pattern, message):
    with pytest.raises(ConfigError, match=message):
        TileSegmentationMetric(tile_pattern=pattern)


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    results = {}
    for pattern in (PATTERN, None):
        metric = TileSegmentationMetric(score_classes=[1])
        metric.dataset_meta = dict(classes=CLASSES, tile_pattern=pattern)
        # Five images on two ranks: the sampler repeats one.
        for index in DefaultSampler(IMAGES, shuffle=False):
            metric.process(None, [IMAGES[index]])
        result = metric.evaluate(len(IMAGES))
        results[pattern] = (result, {tile: score.to_dict() for tile, score in metric.report.tiles.items()})
    torch.save(results, os.path.join(folder, f'{rank}.pt'))
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    for rank in range(2):
        for pattern, (result, tiles) in torch.load(tmp_path / f'{rank}.pt', weights_only=True).items():
            metric, alone = metric_of(meta=dict(tile_pattern=pattern)) if pattern is None else metric_of()
            assert result == alone
            assert tiles == {tile: score.to_dict() for tile, score in metric.report.tiles.items()}
