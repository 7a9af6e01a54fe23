"""Pictures of attention: positions, colours and layout."""

import cv2
import numpy as np
import pytest

from lale_mmseg.evaluation.attention_plots import (
    Backdrop,
    plot_listening,
    plot_pixel,
    plot_pyramid,
    plot_tokens,
    token_colors,
)


def backdrop(height: int = 64, width: int = 64, **settings) -> Backdrop:
    image = np.full((height, width, 3), 127, np.uint8)
    return Backdrop(image, **{'input_hw': (height, width), **settings})


def boxes(path, colors) -> list[tuple[int, int, int, int]]:
    """(left, top, width, height) of the largest area of each RGB colour in a picture."""
    drawn = cv2.imread(str(path))[..., ::-1].astype(int)
    found = []
    for color in colors:
        mask = (abs(drawn - np.asarray(color)).max(axis=2) <= 3).astype(np.uint8)
        stats = cv2.connectedComponentsWithStats(mask, connectivity=4)[2][1:]
        found.append(tuple(map(int, max(stats, key=lambda row: row[4])[:4])))
    return found


def test_cells_lie_where_they_are_in_the_image(tmp_path):
    """Two tokens share the picture left and right, the left one twice as wide."""
    winners = np.array([[0, 0, 1]])
    plot_listening(backdrop(60, 90, alpha=1.0), winners, [2 / 3, 1 / 3], 'title', tmp_path / 'x.png')
    left, right = boxes(tmp_path / 'x.png', (255 * token_colors(2)).round())
    assert left[0] + left[2] == pytest.approx(right[0], abs=2)
    assert left[2] == pytest.approx(2 * right[2], abs=4)
    assert left[3] == pytest.approx(right[3], abs=2)
    assert left[2] + right[2] == pytest.approx(1.5 * left[3], abs=4)


def test_padding_of_the_input_is_cut_off(tmp_path):
    """The input is twice as wide as the image, so of four columns of cells two are seen."""
    winners = np.array([[0, 1, 2, 2]])
    padded = backdrop(60, 60, alpha=1.0, input_hw=(60, 120))
    plot_listening(padded, winners, [0.25, 0.25, 0.5], 'title', tmp_path / 'x.png')
    first, second, third = boxes(tmp_path / 'x.png', (255 * token_colors(3)).round())
    assert first[2] == pytest.approx(second[2], abs=3)
    assert first[3] == pytest.approx(2 * first[2], abs=4)
    assert third[2] * third[3] < 0.2 * first[2] * first[3]  # its entry in the legend alone


def test_each_token_reaches_the_end_of_the_scale(tmp_path):
    """The best cell of every token has the brightest colour, however small its weights, and no other cell has it."""
    maps = np.zeros((4, 2, 2))
    maps[range(4), (0, 0, 1, 1), (0, 1, 0, 1)] = (1.0, 1e-3, 1e-6, 0.5)
    plot_tokens(backdrop(alpha=1.0), maps, [''] * 4, 'title', tmp_path / 'x.png')
    drawn = cv2.imread(str(tmp_path / 'x.png'))[..., ::-1].astype(int)
    bright = (abs(drawn - [252, 255, 164]).max(axis=2) <= 3).astype(np.uint8)
    areas = cv2.connectedComponentsWithStats(bright)[2][1:, 4]
    cells = sorted(areas)[-4:]
    assert cells[0] > 0.9 * cells[-1] > 1000


@pytest.mark.parametrize(('tokens', 'size'), [(1, (64, 64)), (30, (300, 20))])
def test_any_number_of_tokens_and_any_shape(tokens, size, tmp_path):
    rng = np.random.default_rng(0)
    plot_tokens(backdrop(*size), rng.random((tokens, 3, 4)), ['peak'] * tokens, 'title', tmp_path / 'a.png')
    winners = rng.integers(0, tokens, (3, 4))
    plot_listening(backdrop(*size), winners, [1 / tokens] * tokens, 'title', tmp_path / 'b.png')
    for name in 'ab':
        assert max(cv2.imread(str(tmp_path / f'{name}.png')).shape) < 4000
    assert len(np.unique(token_colors(tokens), axis=0)) == tokens


def test_pyramids_and_pixels_are_drawn(tmp_path):
    maps = [np.ones((side, side)) for side in (3, 2)]
    rows = [('all queries', maps, None), ('one query', [part * 0 for part in maps], (63, 0))]
    plot_pyramid(backdrop(), rows, 'title', tmp_path / 'a.png')
    plot_pixel(backdrop(), np.ones((2, 2)), (0, 63), 'title', tmp_path / 'b.png')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.png', 'b.png']
    cyan = [cv2.imread(str(tmp_path / name))[..., ::-1].astype(int) - [0, 229, 255] for name in ('a.png', 'b.png')]
    assert all((abs(difference).max(axis=2) < 20).any() for difference in cyan)
