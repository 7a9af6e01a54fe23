"""Maps of a frozen encoder on disk: equal to what is computed, whatever happens to the files."""

import multiprocessing
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from lale_mmseg.errors import ConfigError
from lale_mmseg.models import feature_cache
from lale_mmseg.models.feature_cache import FeatureCache
from tests.support import REPO
from tests.test_models.test_sam_vit import SMALL, build


def encoder(folder, **changes):
    """A small encoder with two maps, whose cache is open."""
    cache_cfg = dict(dir=str(folder)) | changes.pop('cache_cfg', {})
    torch.manual_seed(1)
    model = build(out_indices=(1,), cache_cfg=cache_cfg, **changes)
    model.init_weights()
    return model


def counted(model) -> list:
    """The batch size of each call of the network inside."""
    calls = []
    model.vit.patch_embed.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    return calls


def files(folder) -> list:
    return sorted(folder.rglob('*.safetensors'))


def equal(first, second) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def same(first, second) -> bool:
    """Equal in values, types and layout."""
    return (
        equal(first, second)
        and [x.dtype for x in first] == [x.dtype for x in second]
        and [x.stride() for x in first] == [x.stride() for x in second]
    )


def test_hits_are_what_was_computed_and_skip_the_network(tmp_path):
    model, x = encoder(tmp_path), torch.randn(3, 3, 64, 96)
    calls = counted(model)
    first = model(x)
    assert calls == [1, 1, 1]
    assert len(files(tmp_path)) == 3
    assert same(model(x), first)
    last = model(x.contiguous(memory_format=torch.channels_last))
    assert equal(last, first)
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in last)
    assert all(y.is_contiguous() for y in first)
    assert calls == [1, 1, 1]
    assert (model.cache.hits, model.cache.misses) == (6, 3)
    assert not any(y.requires_grad for y in first)
    torch.testing.assert_close(first, build_uncached(model)(x))
    again = encoder(tmp_path)  # as in another process
    assert same(again(x), first)
    assert (again.cache.hits, again.cache.misses) == (3, 0)


def build_uncached(model):
    other = build(out_indices=(1,))
    other.load_state_dict(model.state_dict())
    return other


def test_the_rest_of_the_batch_does_not_matter(tmp_path):
    model, x = encoder(tmp_path / 'a'), torch.randn(4, 3, 64, 64)
    whole = model(x)
    other = encoder(tmp_path / 'b')
    parts = [other(x[2:]), other(x[:2])]
    for position, together in enumerate(whole):
        assert torch.equal(torch.cat([parts[1][position], parts[0][position]]), together)
    calls = counted(model)
    mixed = torch.cat([x[3:], x[1:2] + 1, x[:1]])
    found = model(mixed)
    assert calls == [1]  # the new one alone
    assert all(torch.equal(y[[0, 2]], z[[3, 0]]) for y, z in zip(found, whole, strict=True))


@pytest.mark.parametrize(
    'other',
    [
        dict(out_indices=(0,)),
        dict(out_neck=False),
        dict(cache_cfg=dict(dtype='float16')),
        'weights',
        'autocast',
        'torch',
        'device',
    ],
)
def test_all_that_maps_depend_on_is_in_the_name(tmp_path, monkeypatch, other):
    x = torch.randn(1, 3, 64, 64)
    model = encoder(tmp_path)
    model(x)
    assert len(files(tmp_path)) == 1
    if isinstance(other, dict):
        changes = dict(out_indices=(1,), cache_cfg={}) | other
        changes['cache_cfg'] = dict(dir=str(tmp_path)) | changes['cache_cfg']
        changed = build(**changes)
        changed.load_state_dict(model.state_dict())
        changed.open_cache()
        changed(x)
    elif other == 'weights':
        model.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})
        model(x)
    elif other == 'autocast':
        with torch.autocast('cpu', dtype=torch.bfloat16):
            low = model(x)
            assert same(model(x), low)
        assert torch.bfloat16 in {y.dtype for y in low}
    else:
        if other == 'torch':
            monkeypatch.setattr(torch, '__version__', '99.0')
        else:
            monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'AVX1024')
        model(x)
    assert len(files(tmp_path)) == 2


def test_a_gpu_is_known_by_its_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: f'model of {device}')
    assert feature_cache.device_name(torch.device('cuda:1')) == 'cuda model of cuda:1'


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    texts = []
    monkeypatch.setattr(feature_cache, 'print_log', lambda text, **_: texts.append(text))
    return texts


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: content[:-40],
        lambda content: content[:-7] + bytes([content[-7] ^ 1]) + content[-6:],
        lambda content: b'',
    ],
)
def test_damaged_files_are_logged_and_made_again(tmp_path, damage, logged):
    model, x = encoder(tmp_path), torch.randn(1, 3, 64, 64)
    first = model(x)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert same(model(x), first)
    assert path.stat().st_size == len(whole)
    assert same(model(x), first)
    assert (model.cache.hits, model.cache.misses) == (1, 2)
    assert len(logged) == 1
    assert 'damaged' in logged[0]


def test_a_full_folder_stores_no_more(tmp_path, logged):
    # Maps of 4 x 4 x (32 + 256) float32: 18,432 bytes an image.
    model, x = encoder(tmp_path, cache_cfg=dict(max_gb=40_000 / 1e9)), torch.randn(4, 3, 64, 64)
    first = model(x)
    assert same(model(x), first)  # two from files, two computed
    assert len(files(tmp_path)) == 2
    assert len(logged) == 1
    assert re.search(r'storing no more feature maps: it contains 3\.\d+e-05 GB of max_gb=4e-05', logged[0])


def test_what_others_wrote_counts(tmp_path):
    first = encoder(tmp_path, cache_cfg=dict(max_gb=60_000 / 1e9))
    second = encoder(tmp_path, cache_cfg=dict(max_gb=60_000 / 1e9))
    for model in (first, second):
        for _ in range(2):
            model(torch.randn(1, 3, 64, 64))
    assert len(files(tmp_path)) == 3


def test_rounding_does_not_depend_on_what_is_stored(tmp_path):
    dtype = 'bfloat16'
    model, x = encoder(tmp_path, cache_cfg=dict(dtype=dtype)), torch.randn(2, 3, 64, 64)
    first = model(x)
    assert same(model(x), first)
    assert model.cache.hits == 2
    exact = build_uncached(model)(x)
    for rounded, value in zip(first, exact, strict=True):
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded, rounded.to(getattr(torch, dtype)).float())
        torch.testing.assert_close(rounded, value, rtol=0.02, atol=0.02)
    assert files(tmp_path)[0].stat().st_size < 0.6 * 18_432
    full = encoder(tmp_path / 'full', cache_cfg=dict(dtype=dtype, max_gb=1e-9))
    assert all(same(full(x), first) for _ in range(2))  # one that stores nothing rounds, too
    assert files(tmp_path / 'full') == []


def test_a_folder_that_cannot_be_made_or_written(tmp_path, monkeypatch, logged):
    (tmp_path / 'file').write_text('')
    model = build(cache_cfg=dict(dir=str(tmp_path / 'file')))
    with pytest.raises(ConfigError, match=r'cache_cfg\.dir=.*: File exists; choose another folder'):
        model.init_weights()

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(feature_cache, 'write_atomic', full)
    model, x = encoder(tmp_path / 'new'), torch.randn(2, 3, 64, 64)
    assert same(model(x), model(x))
    assert len(logged) == 1
    assert 'No space left' in logged[0]


@pytest.mark.parametrize('options', [dict(max_gb=0), dict(dtype='int8')])
def test_invalid_options(options):
    with pytest.raises(ConfigError, match=rf'^cache_cfg\.{next(iter(options))}=.*: expected'):
        FeatureCache(dir='x', **options)


def test_testing_and_prediction_leave_the_disk_alone(tmp_path):
    model = build(cache_cfg=dict(dir=str(tmp_path / 'cache')))
    model(torch.randn(1, 3, 64, 64))
    assert not (tmp_path / 'cache').exists()


def fill(folder: str, rank: int, count: int) -> None:
    cache = FeatureCache(folder)
    cache.open()
    for step in range(count):
        image = torch.full((1, 1, 8, 8), float((step * (rank + 1)) % count))
        (found,) = cache.lookup(image, 'x', lambda image: [image.repeat(1, 64, 4, 4) * 3])
        assert torch.equal(found, image.repeat(1, 64, 4, 4) * 3)


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context('fork')
    ranks = [context.Process(target=fill, args=(str(tmp_path), rank, 23)) for rank in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0] * 4
    assert len(files(tmp_path)) == 23


def test_two_epochs_of_training_are_those_without_a_cache(tmp_path):
    def train(cache_cfg):
        torch.manual_seed(0)
        cfg = Config.fromfile(REPO / 'configs/_base_/models/sam_unet.py').model
        cfg.backbone.update(arch=SMALL, img_size=64, weights=None, out_indices=(0, 1, 2, 3), cache_cfg=cache_cfg)
        cfg.decode_head.update(num_classes=2, in_channels=(32,) * 4)
        model = revert_sync_batchnorm(MODELS.build(cfg)).train()
        model.init_weights()
        calls = counted(model.backbone)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses, images = [], torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        for image in [*images, *images]:
            image = image[None].contiguous(memory_format=torch.channels_last)  # as images are in training
            sample = SegDataSample(gt_sem_seg=PixelData(data=(image[:, 0] > 0).long()))
            found = model(image, [sample], mode='loss')
            loss = found['decode.loss_bce'] + found['decode.loss_dice']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, len(calls)

    losses, calls = train(None)
    assert calls == 8
    assert losses[:4] != losses[4:]
    assert train(dict(dir=str(tmp_path))) == (losses, 4)  # the encoder is not called in the second epoch
