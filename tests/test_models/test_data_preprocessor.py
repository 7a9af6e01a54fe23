import pytest
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from lale_mmseg.errors import ConfigError, DataError


def build(**options):
    return MODELS.build(dict(type='ChannelsLastDataPreProcessor', **options))


def sample(name):
    return SegDataSample(metainfo=dict(img_path=name, img_shape=(4, 4), ori_shape=(4, 4)))


def test_normalizes_any_number_of_bands():
    preprocessor = build(mean=[1.0, 2.0, 3.0, 4.0], std=[1.0, 2.0, 1.0, 4.0])
    image = torch.full((4, 2, 2), 5, dtype=torch.uint8)
    batch = preprocessor(dict(inputs=[image], data_samples=[sample('a')]))['inputs']
    assert batch[0, :, 0, 0].tolist() == [4.0, 1.5, 2.0, 0.25]


def test_turns_bgr_into_rgb_before_it_normalizes():
    preprocessor = build(mean=[10.0, 0.0, 0.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=True)
    image = torch.tensor([1, 2, 30], dtype=torch.uint8).reshape(3, 1, 1)
    batch = preprocessor(dict(inputs=[image], data_samples=[sample('a')]))['inputs']
    assert batch.flatten().tolist() == [20.0, 2.0, 1.0]


@pytest.mark.parametrize('channels_last', [True, False])
def test_memory_format_of_batches(channels_last):
    preprocessor = build(mean=[0.0] * 3, std=[1.0] * 3, channels_last=channels_last)
    batch = preprocessor(dict(inputs=[torch.zeros(3, 4, 6)] * 2, data_samples=[sample('a')] * 2))['inputs']
    assert batch.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert batch.is_contiguous() is not channels_last


def test_buffers_are_no_part_of_checkpoints():
    assert build(mean=[0.0], std=[1.0]).state_dict() == {}


def test_wrong_images_are_named():
    preprocessor = build(mean=[0.0] * 3, std=[1.0] * 3)
    four, wide = torch.zeros(4, 4, 4), torch.zeros(3, 4, 5)
    with pytest.raises(DataError, match=r'b\.tif: 4 bands, but data_preprocessor\.mean has 3 values'):
        preprocessor(dict(inputs=[four[:3], four], data_samples=[sample('a'), sample('b.tif')]))
    with pytest.raises(DataError, match=r'b\.png: size \(4, 5\) in a batch of size \(4, 4\); set batch_size=1'):
        preprocessor(dict(inputs=[four[:3], wide], data_samples=[sample('a'), sample('b.png')]))


@pytest.mark.parametrize(
    'options', [dict(mean=[0.0]), dict(mean=[0.0], std=[1.0, 1.0]), dict(mean=[0.0, 0.0], std=[1.0, 0.0])]
)
def test_statistics_that_do_not_fit_are_named(options):
    with pytest.raises(ConfigError, match='data_preprocessor'):
        build(**options)
