"""Which window of a tile becomes its crop, and windows that are named by hand."""

import numpy as np
import pytest

from data_prep.datasets.inria.crops import STEP, Crop, choose_crop, read_nudges
from lale_mmseg.errors import DataError

SIDE, SIZE = 120, 40
CENTRE = 40


def tile(*boxes: tuple[int, int, int, int], height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Labels with buildings in boxes (x0, y0, x1, y1)."""
    labels = np.zeros((height, width), np.uint8)
    for x0, y0, x1, y1 in boxes:
        labels[y0:y1, x0:x1] = 255
    return labels


def nearest_by_hand(labels: np.ndarray, size: int, least: float) -> tuple[int, int] | None:
    """The rule in words, window by window."""
    height, width = labels.shape
    y0, x0 = (height - size) // 2, (width - size) // 2
    found = []
    for y in range(height - size + 1):
        for x in range(width - size + 1):
            on_grid = ((y - y0) % STEP == 0 or y in (0, height - size)) and (
                (x - x0) % STEP == 0 or x in (0, width - size)
            )
            if on_grid and (labels[y : y + size, x : x + size] > 0).mean() >= least:
                found.append(((y - y0) ** 2 + (x - x0) ** 2, y, x))
    return min(found)[:0:-1] if found else None


def test_the_centre_is_taken_where_it_has_enough():
    # 80 of 1600 pixels are 5 % exactly; more buildings elsewhere change nothing.
    labels = tile((50, 50, 60, 58), (0, 0, 40, 40))
    assert choose_crop(labels, SIZE, 0.05) == Crop(CENTRE, CENTRE, 0.05, 'centre')


def test_a_building_in_a_corner():
    labels = tile((100, 0, 120, 10))
    # 80 of its 200 pixels are enough: 8 columns of all 10 rows, 28 to the right and 40 up (2384); with 6 rows it takes
    # 14 columns, 36 and 36 (2592), with 2 rows more columns than there are.
    crop = choose_crop(labels, SIZE, 0.05)
    assert (crop.x, crop.y) == nearest_by_hand(labels, SIZE, 0.05)
    assert (crop.x, crop.y, crop.share, crop.reason) == (68, 0, 0.05, 'moved')


def place(labels: np.ndarray) -> tuple[int, int]:
    crop = choose_crop(labels, SIZE, 0.1)
    return crop.x, crop.y


def test_of_equal_distances_the_upper_one_and_then_the_left_one_is_taken():
    boxes = dict(up=(40, 20, 80, 40), left=(20, 40, 40, 80), right=(80, 40, 100, 80), down=(40, 80, 80, 100))
    assert place(tile(*boxes.values())) == (CENTRE, CENTRE - 4)
    assert place(tile(boxes['left'], boxes['right'])) == (CENTRE - 4, CENTRE)
    assert place(tile(boxes['down'], boxes['right'])) == (CENTRE + 4, CENTRE)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('shape', [(120, 120), (97, 131), (43, 90)])
def test_it_is_the_nearest_window_of_all(seed, shape):
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for _ in range(2):
        y, x = rng.integers(0, shape[0] - 10), rng.integers(0, shape[1] - 10)
        labels[y : y + 10, x : x + 12] = 255
    crop = choose_crop(labels, SIZE, 0.06)
    due = nearest_by_hand(labels, SIZE, 0.06)
    assert due is not None
    assert (crop.x, crop.y) == due
    assert crop.share == (labels[crop.y : crop.y + SIZE, crop.x : crop.x + SIZE] > 0).mean()


def test_under_the_share_everywhere_the_best_window_is_taken():
    # 4 x 4 pixels at the left, 5 x 5 at the right: no window has both.
    labels = tile((0, 60, 4, 64), (110, 60, 115, 65))
    crop = choose_crop(labels, SIZE, 0.05)
    assert (crop.share, crop.reason) == (25 / 1600, 'best')
    # Of those that hold all of it the nearest: its right side is at 115, so x is 76 (of 40 + 4 k).
    assert (crop.x, crop.y) == (76, CENTRE)


def test_the_border_is_reached_where_it_is_no_multiple_of_the_step():
    labels = tile((130, 0, 131, 97), height=97, width=131)
    crop = choose_crop(labels, SIZE, 0.02)
    assert (crop.x, crop.reason) == (131 - SIZE, 'moved')


def test_a_nudge_goes_before_everything():
    labels = tile((50, 50, 60, 58))
    assert choose_crop(labels, SIZE, 0.05, (3, 79)) == Crop(3, 79, 0, 'nudged')
    assert choose_crop(labels, SIZE, 0.05, (45, 45)) == Crop(45, 45, 0.05, 'nudged')


def test_nudges_are_read(tmp_path):
    (tmp_path / 'nudges.csv').write_text('\ufefftile, x, y\naustin2, 0, 17\n\naustin10,5,6\n', encoding='utf-8')
    tiles = ['austin1', 'austin2', 'austin10']
    assert read_nudges(tmp_path / 'nudges.csv', tiles) == dict(austin2=(0, 17), austin10=(5, 6))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'expected a table tile,x,y of a tile and two whole numbers'),
        ('tile,row,column\n', 'the header is tile,row,column; expected a table tile,x,y'),
        ('tile,x,y\naustin3,0,0\n', 'austin3: listed twice, or not in the source'),
        ('tile,x,y\naustin1,0,0\n\naustin1,4,4\n', 'austin1, austin1: listed twice, or not in the source'),
        ('tile,x,y\naustin1,0.5,0\n', 'expected a table tile,x,y of a tile and two whole numbers'),
        ('tile,x,y\naustin1,0\n', 'expected a table tile,x,y of a tile and two whole numbers'),
    ],
)
def test_bad_table(tmp_path, text, message):
    path = tmp_path / 'nudges.csv'
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_nudges(path, ['austin1', 'austin2'])
    assert str(caught.value).startswith(str(path))
