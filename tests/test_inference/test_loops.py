"""The loops around the predictor."""

from lale_mmseg.inference import loops
from tests.test_inference.segmentors import data, predictor


def test_long_images_leave_lines_in_the_log(monkeypatch):
    predict = predictor(mode='slide', crop_size=(32, 32), stride=(32, 32), batch_size=3)
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(loops.time, 'monotonic', lambda: next(clock))
    lines = []
    monkeypatch.setattr(loops, 'print_log', lambda text, logger: lines.append(text))
    # 8 windows, 3 at once: 20 s for each batch.
    loops.predict_logged(predict, data((32, 256), img_path='/somewhere/tile.tif'))
    assert lines == ['tile.tif: 6 of 8 windows, about 0:13 min left']
