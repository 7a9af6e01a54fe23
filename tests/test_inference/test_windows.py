import numpy as np
import pytest

from lale_mmseg.inference.windows import num_windows, windows


@pytest.mark.parametrize(
    ('height', 'width', 'size', 'overlap'),
    [(100, 90, 32, 8), (33, 200, 32, 31), (32, 32, 32, 0), (5, 64, 32, 4), (97, 65, 32, 0)],
)
def test_kept_parts_cover_every_pixel_once_and_lie_inside_their_windows(height, width, size, overlap):
    count = np.zeros((height, width), int)
    found = list(windows(height, width, size, overlap))
    for window in found:
        count[window.keep_rows, window.keep_columns] += 1
        for read, keep in ((window.rows, window.keep_rows), (window.columns, window.keep_columns)):
            assert 0 <= read.start <= keep.start < keep.stop <= read.stop
            assert read.stop - read.start <= size
        assert window.rows.stop <= height
        assert window.columns.stop <= width
    assert (count == 1).all()
    assert len(found) == num_windows(height, width, size, overlap)


def test_by_hand():
    """Length 10 in windows of 6 with overlap 2: 0-6 and 4-10, which meet in the middle of 4-6."""
    (first, second) = windows(4, 10, 6, 2)
    assert (first.columns, first.keep_columns) == (slice(0, 6), slice(0, 5))
    assert (second.columns, second.keep_columns) == (slice(4, 10), slice(5, 10))
    assert second.kept == (slice(0, 4), slice(1, 6))


@pytest.mark.parametrize(('size', 'overlap'), [(0, 0), (8, 8), (8, -1)])
def test_bad_sizes_are_named(size, overlap):
    with pytest.raises(ValueError, match=f'size={size}, overlap={overlap}'):
        list(windows(20, 20, size, overlap))
