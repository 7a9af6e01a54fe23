"""Where windows lie, and means over them worked out by hand."""

import math

import pytest
import torch

from lale_mmseg.inference.windows import Window, WindowGrid, WindowMean


def test_windows_lie_where_mmsegmentation_puts_them():
    grid = WindowGrid((10, 7), (4, 4), (3, 2))
    assert [(w.top, w.left) for w in grid] == [(t, x) for t in (0, 3, 6) for x in (0, 2, 3)]
    rows, columns = grid.cover()
    assert rows[:, 0].tolist() == [1, 1, 1, 2, 1, 1, 2, 1, 1, 1]
    assert columns.tolist() == [1, 1, 2, 3, 2, 2, 1]
    assert len(grid) == 9
    assert list(WindowGrid((3, 5), (4, 4), (4, 4))) == [Window(0, 0, 3, 4), Window(0, 1, 3, 4)]


def means_by_hand(grid: WindowGrid, keep: bool) -> tuple[list[float], list[int]]:
    """Means over rows if the n-th window is n everywhere, and how many rows became classes at once."""
    seen = []
    mean = WindowMean(grid, lambda scores: seen.append(scores.clone()) or scores[0].to(torch.uint8), keep)
    for number, window in enumerate(grid, start=1):
        mean.add(window, torch.full((1, window.height, 1), float(number)))
    scores = mean.scores if keep else torch.cat(seen, dim=1)
    assert scores is not None
    assert (mean.classes is None) == keep
    return scores[0, :, 0].tolist(), [len(rows[0]) for rows in seen]


@pytest.mark.parametrize('keep', [True, False])
def test_the_mean_of_overlapping_windows(keep):
    """Windows of 2 rows every row over 3 rows: 1, (1 + 2) / 2, 2."""
    means, finished = means_by_hand(WindowGrid((3, 1), (2, 1), (1, 1)), keep)
    assert means == [1, 1.5, 2]
    assert finished == ([] if keep else [1, 2])  # as soon as they are complete


@pytest.mark.parametrize('keep', [True, False])
def test_hann_weights_fade_to_the_neighbour_and_are_full_at_the_border_of_the_image(keep):
    """Windows of 4 rows every 2 rows over 6 rows.

    sin^2 at (0.5, 1.5, 2.5, 3.5) / 4 of pi is a, b, b, a. The first window weighs 1, 1, b, a, the second a, b, 1, 1.
    Rows 2 and 3 are in both: (b + 2 a) / (a + b) and (a + 2 b) / (a + b), and a + b = 1.
    """
    a = math.sin(math.pi / 8) ** 2
    b = 1 - a
    grid = WindowGrid((6, 1), (4, 1), (2, 1), 'hann')
    assert grid.weights(Window(2, 0, 4, 1))[0][:, 0].tolist() == pytest.approx([a, b, 1, 1])
    means, _ = means_by_hand(grid, keep)
    assert means == pytest.approx([1, 1, b + 2 * a, a + 2 * b, 2, 2])


def test_hann_weights_of_windows_that_do_not_overlap_leave_scores_as_they_are():
    grid = WindowGrid((12, 8), (4, 4), (4, 4), 'hann')
    scores = torch.rand(3, 12, 8)
    mean = WindowMean(grid, lambda scores: scores, keep=True)
    for window in grid:
        mean.add(window, scores[:, window.rows, window.columns])
    torch.testing.assert_close(mean.scores, scores)
