"""Masks of Inria's hidden tiles: predicted as tools/test.py predicts, written whole, resumed, checked, packed.

Tiles have 96x96 pixels here, but for the slow tests, and the network is a tiny one with random weights.
"""

import hashlib
import json
import os
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import from_origin

from lale_mmseg.errors import CheckpointError, ConfigError, DataError, InputError
from lale_mmseg.files import save_png
from lale_mmseg.metainfo import inria
from tests.support import REPO, run_tool
from tests.test_docs import load_script

TOOL = 'tools/analysis/inria_submission.py'
CONFIG = """
_base_ = '{repo}/configs/_base_/default_runtime.py'
data_root = '{root}'
norm_cfg = dict(type='BN')
pipeline = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
model = dict(
    type='{segmentor}',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[100.0, 110.0, 120.0], std=[50.0, 55.0, 60.0], bgr_to_rgb=True, pad_val=0
    ),
    backbone=dict(
        type='UNet', base_channels=4, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1), dec_num_convs=(1,),
        downsamples=(True,), enc_dilations=(1, 1), dec_dilations=(1,), norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='FCNHead', in_channels=4, in_index=1, channels=4, num_convs=0, concat_input=False, num_classes={classes},
        norm_cfg=norm_cfg, align_corners=False, dropout_ratio=0.0,
    ),
    test_cfg={test_cfg},
)
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='test', pipeline=pipeline, test_mode=True),
)
test_evaluator = dict(type='SegmentationMetric', score_classes=[1])
test_cfg = dict(type='TestLoop')
"""
SLIDE = "dict(mode='slide', crop_size=(64, 64), stride=(40, 40))"


def write_config(root: Path, segmentor='SlidingEncoderDecoder', test_cfg=SLIDE, classes=2, name='config') -> Path:
    path = root / f'{name}.py'
    path.write_text(
        CONFIG.format(repo=REPO, root=root / 'labelled', segmentor=segmentor, test_cfg=test_cfg, classes=classes)
    )
    return path


def write_tile(path: Path, side: int, seed: int, count: int = 3, dtype: str = 'uint8') -> None:
    """Blocks of random colours, with a place on the ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (count, -(-side // 8), -(-side // 8)))
    image = np.kron(blocks, np.ones((8, 8)))[:, :side, :side].astype(dtype)
    place = dict(crs=CRS.from_epsg(26910), transform=from_origin(540000 + seed, 5400000, 0.3, 0.3))
    with rasterio.open(path, 'w', 'GTiff', side, side, count, dtype=dtype, **place) as dataset:
        dataset.write(image)


def make(root: Path, side: int, tiles=('bellingham1', 'bellingham2', 'sfo36')) -> Path:
    """Hidden tiles, the first of them with labels as well, config and checkpoint."""
    for seed, name in enumerate(tiles):
        write_tile(root / 'images' / f'{name}.tif', side, seed)
    labelled = root / 'labelled'
    write_tile(labelled / 'images' / f'{tiles[0]}.tif', side, 0)
    mask = np.zeros((side, side, 3), np.uint8)
    mask[: side // 2] = (255, 0, 0)
    save_png(labelled / 'masks' / f'{tiles[0]}.png', mask)
    (labelled / 'classes.csv').write_text('index,name,r,g,b\n0,background,0,0,0\n1,building,255,0,0\n')
    (labelled / 'test.txt').write_text(f'{tiles[0]}\n')
    write_checkpoint(write_config(root), root / 'weights.pth')
    return root


def write_checkpoint(config: Path, path: Path, seed: int = 0, description: dict | None = None) -> Path:
    """Random weights, with batch statistics that are not the ones of a new network."""
    from mmengine.config import Config
    from mmseg.registry import MODELS

    from lale_mmseg.engine.checkpoint import DESCRIPTION_KEY

    torch.manual_seed(seed)
    model = MODELS.build(Config.fromfile(config).model)
    for name, value in model.state_dict().items():
        if name.endswith(('weight', 'running_mean')):
            value.normal_(0, 0.5)
    content = dict(state_dict=model.state_dict(), meta={})
    if description is not None:
        content[DESCRIPTION_KEY] = json.dumps(description)
    torch.save(content, path)
    return path


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Three tiles of 96x96 pixels, and the tool in this process."""
    monkeypatch.setattr(inria, 'TILE_SIZE', 96)
    return make(tmp_path, 96)


@pytest.fixture
def submit(small, monkeypatch, capsys):
    """Runs the tool; returns the exit status and what was printed."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    module = load_script(TOOL)

    def run(*options, config='config.py', partial=True, out='out'):
        words = [small / config, small / 'weights.pth', '--images', small / 'images', '--out', small / out]
        words += ['--device', 'cpu', *(['--partial'] if partial else []), *options]
        monkeypatch.setattr('sys.argv', [TOOL, *map(str, words)])
        status = module.main()
        return status, capsys.readouterr()

    return run


def read(path: Path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.crs, dataset.transform, dataset.compression


def of_the_test(root: Path, config: Path, out: Path, *options) -> np.ndarray:
    """Classes that tools/test.py writes for the labelled tile."""
    words = [config, root / 'weights.pth', '--work-dir', out / 'work', '--out', out, *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPO / 'tools'))
        patch.setattr('sys.argv', ['tools/test.py', *map(str, words)])
        load_script('tools/test.py').main()
    return cv2.imread(str(out / 'bellingham1.png'), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize('tta', [(), ('--tta',)], ids=['plain', 'tta'])
def test_masks_are_those_of_the_test(small, submit, tta):
    status, _ = submit(*tta)
    mask, crs, transform, compression = read(small / 'out' / 'bellingham1.tif')
    expected = of_the_test(small, small / 'config.py', small / 'tested', *tta)
    assert 0.01 < expected.mean() < 0.99, 'both classes are due, or the comparison says nothing'
    np.testing.assert_array_equal(mask[0], expected * 255)
    assert status == 0
    assert mask.shape == (1, 96, 96)
    assert mask.dtype == np.uint8
    assert (crs, transform) == (CRS.from_epsg(26910), from_origin(540000, 5400000, 0.3, 0.3))
    assert compression is not None


def test_a_network_of_whole_crops_gets_windows(small, submit):
    """A plain EncoderDecoder in whole mode is predicted in windows, as a test that slides by the same numbers."""
    write_config(small, 'EncoderDecoder', "dict(mode='whole')", name='whole')
    status, said = submit('--window', 48, '--stride', 31, config='whole.py')
    assert status == 0
    assert 'windows of 48 x 48 pixels every 31 x 31' in said.out
    slide = write_config(small, test_cfg="dict(mode='slide', crop_size=(48, 48), stride=(31, 31))", name='slide')
    expected = of_the_test(small, slide, small / 'tested')
    np.testing.assert_array_equal(read(small / 'out' / 'bellingham1.tif')[0][0], expected * 255)
    whole = of_the_test(small, small / 'whole.py', small / 'tested_whole')
    assert (whole != expected).any(), 'the windows make a difference here'


def test_files_that_training_starts_from_need_not_be_there(small, submit, monkeypatch):
    """A part that reads its weights as soon as it is built is told of none."""
    path = small / 'config.py'
    path.write_text(
        path.read_text() + "model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='gone.pth')\n"
    )
    tool, built = load_script(TOOL), []
    build = tool.build_model
    monkeypatch.setattr(tool, 'build_model', lambda *args: built.append(build(*args)) or built[0])
    assert submit('--limit', 1)[0] == 0
    assert 'gone.pth' not in str(built[0])


def test_windows_without_a_slide_mode(small, submit):
    write_config(small, test_cfg="dict(mode='whole')", name='whole')
    assert 'windows of 1024 x 1024 pixels every 768 x 768' in submit(config='whole.py')[1].out
    text = (small / 'whole.py').read_text()
    crop = "dict(type='RandomCrop', crop_size=(64, 80))"
    (small / 'crops.py').write_text(
        f"{text}\ntrain_dataloader = dict(dataset=dict(type='PaletteDataset', pipeline=[*pipeline, {crop}]))\n"
    )
    assert 'windows of 64 x 80 pixels every 48 x 60' in submit(config='crops.py', out='crops')[1].out


def test_summary_and_check(small, submit):
    status, said = submit()
    summary = json.loads((small / 'out' / 'summary.json').read_text())
    masks = {name: read(small / 'out' / f'{name}.tif')[0] for name in ('bellingham1', 'bellingham2', 'sfo36')}
    shares = {name: 100 * (mask == 255).mean() for name, mask in masks.items()}
    assert status == 0
    assert summary['complete'] is False
    assert len(summary['missing']) == 177
    assert summary['tiles'] == pytest.approx(shares)
    mean = (shares['bellingham1'] + shares['bellingham2']) / 2
    assert summary['cities']['bellingham']['building'] == pytest.approx(mean)
    assert summary['cities']['sfo']['tiles'] == 1
    row = next(line for line in said.out.splitlines() if line.startswith('bellingham'))
    assert row.split()[1:5] == ['2', 'of', '36', f'{mean:.2f}']
    assert '177 of 180 tiles missing: bellingham3' in said.out


def test_finished_tiles_are_kept(small, submit):
    out = small / 'out'
    assert '0 of 3 tiles finished' in submit('--limit', 2)[1].out
    assert [path.name for path in sorted(out.glob('*.tif'))] == ['bellingham1.tif', 'bellingham2.tif']
    before = (out / 'bellingham1.tif').stat().st_mtime_ns
    (out / 'bellingham2.tif').write_bytes(b'cut off')
    (out / '.sfo36.tif.77.tmp').write_bytes(b'of a killed run')
    (out / '.manifest.json.77.0123456789abcdef.tmp').write_bytes(b'of a killed run')
    status, said = submit()
    assert '1 of 3 tiles finished' in said.out
    assert status == 0
    assert (out / 'bellingham1.tif').stat().st_mtime_ns == before
    assert read(out / 'bellingham2.tif')[0].shape == (1, 96, 96)
    assert not list(out.glob('.*'))


@pytest.mark.parametrize('change', ['weights', 'windows', 'views'])
def test_tiles_of_other_settings_are_not_mixed(small, submit, change):
    submit('--limit', 1)
    if change == 'weights':
        write_checkpoint(small / 'config.py', small / 'weights.pth', seed=1)
    options = {'weights': (), 'windows': ('--window', 32), 'views': ('--tta',)}[change]
    key = {'weights': 'checkpoint', 'windows': 'window', 'views': 'views'}[change]
    with pytest.raises(InputError, match=rf'made otherwise \(.*{key} .*--overwrite'):
        submit(*options)
    first = read(small / 'out' / 'bellingham1.tif')[0]
    status, said = submit(*options, '--overwrite')
    assert (status, '0 of 3 tiles finished' in said.out) == (0, True)
    assert (read(small / 'out' / 'bellingham1.tif')[0] != first).any()


@pytest.mark.parametrize('options', [('--cities', 'sfo'), ('--limit', 1)])
def test_overwrite_replaces_the_chosen_tiles_alone(small, submit, options):
    """The others stay as they are, and the folder is no submission while they are of another checkpoint."""
    submit()
    out = small / 'out'
    chosen = 'sfo36' if '--cities' in options else 'bellingham1'
    before = {path.name: path.read_bytes() for path in out.glob('*.tif')}
    assert len(before) == 3
    write_checkpoint(small / 'config.py', small / 'weights.pth', seed=1)
    status, said = submit('--overwrite', *options)
    changed = {name for name, content in before.items() if (out / name).read_bytes() != content}
    assert changed == {f'{chosen}.tif'}
    assert status == 1
    assert '2 tiles are of another checkpoint or other settings' in said.err
    assert json.loads((out / 'summary.json').read_text())['complete'] is False
    with pytest.raises(InputError, match=r'made otherwise \(checkpoint'):
        submit()
    assert submit('--overwrite')[0] == 0
    assert '3 of 3 tiles finished' in submit()[1].out


def test_overwrite_of_few_tiles_at_a_time_comes_to_an_end(small, submit):
    submit()
    write_checkpoint(small / 'config.py', small / 'weights.pth', seed=1)
    assert [submit('--overwrite', '--limit', 1)[0] for _ in range(3)] == [1, 1, 0]


def test_old_masks_stay_until_the_new_ones_are_whole(small, submit, monkeypatch):
    """A run that is killed at its first tile has lost none, and goes on without --overwrite."""
    submit()
    out = small / 'out'
    before = {path.name: path.read_bytes() for path in out.glob('*.tif')}
    write_checkpoint(small / 'config.py', small / 'weights.pth', seed=1)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, 'forward', killed)
        with pytest.raises(KeyboardInterrupt):
            submit('--overwrite')
    assert {path.name: path.read_bytes() for path in out.glob('*.tif')} == before
    status, said = submit()
    assert (status, '0 of 3 tiles finished before, 3 to predict' in said.out) == (0, True)
    assert all((out / name).read_bytes() != content for name, content in before.items())


@pytest.fixture
def tiles(small, submit):
    """The hidden tiles of a folder, as files of a few bytes."""
    from _submission_tiles import SourceTile

    found = [SourceTile(name, inria.city_of(name), small / 'tiny' / f'{name}.tif') for name in inria.HIDDEN_TILES[:40]]
    (small / 'tiny').mkdir()
    for tile in found:
        tile.path.write_bytes(tile.name.encode())
    return found


def test_two_processes_share_a_folder(small, tiles):
    """Each has its own tiles and writes the manifest in turn; both know all at the end, and so does a third."""
    from _submission_tiles import Manifest

    out = small / 'shared'

    def work(mine):
        manifest = Manifest(out, dict(checkpoint='a'))
        for tile in manifest.choose(mine):
            with manifest.updated():
                (out / f'{tile.name}.tif').write_bytes(b'mask')
                manifest.finish(tile, hashlib.sha256(b'mask').hexdigest(), 1.0)

    threads = [threading.Thread(target=work, args=(tiles[start::2],)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tile.name for tile in tiles if not Manifest(out, dict(checkpoint='a')).is_finished(tile)] == []
    assert not list(out.glob('.*'))
    with pytest.raises(InputError, match=r'made otherwise \(checkpoint'):
        Manifest(out, dict(checkpoint='b'))


def test_what_another_process_writes_is_not_taken_for_a_leftover(small, tiles):
    from _submission_tiles import Manifest

    out = small / 'shared'
    first = Manifest(out, dict(checkpoint='a'))
    first.choose(tiles[:1])
    second = threading.Thread(target=Manifest, args=(out, dict(checkpoint='a')))
    written = out / f'.{tiles[0].name}.tif.77.tmp'
    with first.updated():
        written.write_bytes(b'half')
        second.start()
        second.join(0.3)
        assert second.is_alive()
        assert written.exists()
    second.join()
    assert not written.exists(), 'now nobody writes'


def test_an_image_of_another_content_is_predicted_again(small, submit):
    """Tiles are not compressed, so an edited one has the same number of bytes; a copy has another time."""
    submit()
    os.utime(small / 'images' / 'bellingham1.tif', ns=(1, 1))
    assert '3 of 3 tiles finished' in submit()[1].out
    size = (small / 'images' / 'sfo36.tif').stat().st_size
    write_tile(small / 'images' / 'sfo36.tif', 96, 7)
    assert (small / 'images' / 'sfo36.tif').stat().st_size == size
    assert '2 of 3 tiles finished before, 1 to predict' in submit()[1].out
    assert '3 of 3 tiles finished' in submit()[1].out


def test_the_name_that_writing_gives_a_file_is_known_as_a_leftover(tmp_path, submit, monkeypatch):
    from _submission_tiles import _is_leftover

    from lale_mmseg.files import write_atomic

    names = []
    monkeypatch.setattr('os.replace', lambda source, _: names.append(Path(source)))
    for name in ('sfo36.tif', 'manifest.json', 'summary.json', 'notes.json'):
        write_atomic(tmp_path / name, 'x')
    assert [_is_leftover(name) for name in names] == [True, True, True, False]


def test_a_mask_that_was_written_and_not_yet_noted_is_predicted_again(small, submit):
    from _submission_tiles import Manifest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, 'finish', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            submit()
    assert (small / 'out' / 'bellingham1.tif').is_file()
    assert submit()[0] == 0


@pytest.mark.parametrize('name', ['sfo36.tif', 'tyrol-e7.tif', 'summary.json'])
def test_files_of_the_user_are_never_replaced(small, submit, name):
    path = small / 'out' / name
    path.parent.mkdir()
    path.write_bytes(b'mine')
    (small / 'out' / '.notes.tmp').write_text('mine')
    with pytest.raises(InputError, match=rf'manifest\.json does not know {name}, so this tool did not write'):
        submit('--overwrite')
    path.unlink()
    assert submit('--overwrite')[0] == 0
    if name == 'tyrol-e7.tif':  # put there later
        path.write_bytes(b'mine')
        for options in ((), ('--overwrite',)):
            with pytest.raises(InputError, match='does not know tyrol-e7'):
                submit(*options)
        assert path.read_bytes() == b'mine'
    assert (small / 'out' / '.notes.tmp').read_text() == 'mine'


def test_a_manifest_of_something_else_is_left_alone(small, submit):
    path = small / 'out' / 'manifest.json'
    path.parent.mkdir()
    path.write_text('{"name": "my web page"}')
    with pytest.raises(InputError, match=r'manifest\.json: not a manifest of this tool, so nothing in the folder'):
        submit('--overwrite')
    assert path.read_text() == '{"name": "my web page"}'


def test_a_folder_of_something_else_is_left_alone(small, submit):
    (small / 'out').mkdir()
    (small / 'out' / 'thesis.txt').write_text('mine')
    with pytest.raises(InputError, match=r'out: is not empty and has no manifest\.json'):
        submit()
    submit('--overwrite')
    assert (small / 'out' / 'thesis.txt').read_text() == 'mine'
    with pytest.raises(InputError, match='is the folder of the images'):
        submit(out='images')


def test_missing_tiles_are_named(submit):
    with pytest.raises(DataError, match=r'177 of 180 tiles are missing: bellingham3, bellingham4.*and 171 more'):
        submit(partial=False)
    with pytest.raises(DataError, match=r'none of the 36 tiles, such as innsbruck1\.tif'):
        submit('--cities', 'innsbruck')
    with pytest.raises(InputError, match='--cities austin: the hidden cities are bellingham'):
        submit('--cities', 'austin')


@pytest.mark.parametrize(
    ('side', 'count', 'dtype', 'message'),
    [
        (80, 3, 'uint8', r'sfo36\.tif: 80 x 80 pixels \(height x width\); a tile has 96 x 96'),
        (96, 1, 'uint8', r'sfo36\.tif: 1 band\(s\) of uint8; a tile has 3'),
        (96, 3, 'uint16', r'sfo36\.tif: 3 band\(s\) of uint16'),
    ],
)
def test_tiles_of_another_form_stop_before_the_first(small, submit, side, count, dtype, message):
    write_tile(small / 'images' / 'sfo36.tif', side, 0, count, dtype)
    with pytest.raises(DataError, match=message):
        submit()
    assert not (small / 'out').exists()


def test_a_tile_that_cannot_be_read_does_not_stop_the_others(small, submit):
    path = small / 'images' / 'bellingham2.tif'
    path.write_bytes(path.read_bytes()[:9000])  # the header is whole
    status, said = submit()
    assert status == 1
    assert 'bellingham2.tif: not a readable TIFF' in said.err
    assert (small / 'out' / 'sfo36.tif').is_file()
    assert not (small / 'out' / 'bellingham2.tif').exists()


def test_other_classes_are_refused(small, submit):
    write_config(small, classes=7)
    with pytest.raises(ConfigError, match=r'decode_head\.num_classes is 7; a submission needs 2: background, building'):
        submit()
    config = write_config(small)
    swapped = dict(config={}, classes=['building', 'background'], palette=[[0, 0, 0]] * 2, version='1')
    write_checkpoint(config, small / 'weights.pth', description=swapped)
    with pytest.raises(CheckpointError, match='classes building, background; a submission needs background, building'):
        submit()


def test_the_check_finds_what_the_benchmark_refuses(small, submit):
    submit()
    from _submission_tiles import check_submission

    out = small / 'out'
    assert check_submission(out).faults == []
    profile = dict(driver='GTiff', width=96, height=96, count=1, dtype='uint8')
    with rasterio.open(out / 'bellingham1.tif', 'w', **profile) as dataset:
        dataset.write(np.eye(96, dtype=np.uint8), 1)
    with rasterio.open(out / 'sfo36.tif', 'w', **{**profile, 'width': 95}) as dataset:
        dataset.write(np.zeros((96, 95), np.uint8), 1)
    write_tile(out / 'austin1.tif', 96, 0)
    check = check_submission(out)
    assert not check.complete
    assert list(check.building) == ['bellingham2']
    assert [fault.rpartition('/')[2] for fault in check.faults] == [
        'out: files that are no tile of the benchmark: austin1.tif',
        'bellingham1.tif: value 1; only 0 and 255 are due',
        'sfo36.tif: 1 band(s) of 96 x 95 uint8; one of 96 x 96 uint8 is due',
    ]


def test_the_archive_holds_all_tiles_or_is_not_written(small, submit):
    archive = small / 'submission.zip'
    with pytest.raises(InputError, match=r'--zip .*takes all 180 tiles only, 3 of 180 are chosen; leave --zip out'):
        submit('--zip', archive)
    assert not (small / 'out').exists()  # nothing was predicted
    for name in inria.HIDDEN_TILES:
        if not (small / 'images' / f'{name}.tif').exists():
            (small / 'images' / f'{name}.tif').write_bytes((small / 'images' / 'sfo36.tif').read_bytes())
    for options, found in ((('--limit', 1), '--limit 1 may leave'), (('--cities', 'sfo'), '36 of 180 are chosen')):
        with pytest.raises(InputError, match=found):
            submit('--zip', archive, *options, partial=False)
    assert not (small / 'out').exists()
    (small / 'folder').mkdir()
    with pytest.raises(InputError, match=r'--zip .*folder: is a folder'):
        submit('--zip', small / 'folder', partial=False)
    assert not (small / 'out').exists()
    status, said = submit('--zip', archive, partial=False)
    assert status == 0
    assert 'complete, 180 tiles of 96 x 96 pixels' in said.out
    with zipfile.ZipFile(archive) as content:
        assert content.namelist() == [f'{name}.tif' for name in inria.HIDDEN_TILES]
        assert content.read('sfo1.tif') == (small / 'out' / 'sfo1.tif').read_bytes()
    assert json.loads((small / 'out' / 'summary.json').read_text())['complete'] is True


@pytest.mark.slow
def test_a_whole_tile_in_a_process_of_its_own(tmp_path):
    """5000x5000 pixels, through the command line, equal to tools/test.py."""
    make(tmp_path, 5000, tiles=('bellingham1',))
    config = write_config(tmp_path, test_cfg="dict(mode='slide', crop_size=(1024, 1024), stride=(768, 768))")
    command = ('python', TOOL, config, tmp_path / 'weights.pth', '--images', tmp_path / 'images')
    done = run_tool(*command, '--out', tmp_path / 'out', '--partial')
    assert '179 of 180 tiles missing' in done.stdout
    mask = read(tmp_path / 'out' / 'bellingham1.tif')[0][0]
    np.testing.assert_array_equal(mask, of_the_test(tmp_path, config, tmp_path / 'tested') * 255)
    failed = run_tool(*command, '--out', tmp_path / 'out', '--partial', '--tta', check=False)
    assert failed.returncode == 2
    assert 'Traceback' not in failed.stderr
    assert "made otherwise (views 'none', now 'd4')" in failed.stderr.splitlines()[-1]
