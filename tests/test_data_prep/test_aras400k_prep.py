"""Unpacking ARAS400k from archives and parquet shards: checks, safety, continuing, counts."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data_prep._archives as archives_module
import data_prep.aras400k as module
from data_prep._images import encode_png
from data_prep._parquet import ShardWriter
from data_prep.aras400k import from_archives, from_parquet, main
from lale_mmseg.errors import ConfigError, DataError, InputError

SCRIPT = Path(__file__).resolve().parents[2] / 'data_prep' / 'aras400k.py'


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def make_zip(tmp_path, make_pair):
    """Function (part, prefix='', count=3, extra={}) -> path of a zip like the published ones."""

    def make(part: str, prefix: str = '', count: int = 3, extra: dict[str, bytes] | None = None) -> Path:
        (tmp_path / 'zips').mkdir(exist_ok=True)
        path = tmp_path / 'zips' / f'{part}.zip'
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as zipped:
            for index in range(count):
                image, mask = make_pair(index, label=index % 7)
                zipped.writestr(f'{prefix}images/N38E032_000_{index:03d}.png', image)
                zipped.writestr(f'{prefix}masks/N38E032_000_{index:03d}.png', mask)
            for name, data in (extra or {}).items():
                zipped.writestr(name, data)
        return path

    return make


def unpack(path: Path, out: Path, **options) -> dict[str, dict]:
    """from_archives with the sums of the archives that are there as the published ones."""
    sums = {zipped.name: md5(zipped) for zipped in path.parent.iterdir()}
    return from_archives(path.parent, out, workers=1, **{'expected_md5': sums, **options})


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('prefix', ['', 'train/'])
def test_archive_with_and_without_a_top_folder(tmp_path, make_zip, make_pair, prefix):
    path = make_zip(
        'train', prefix, extra={'__MACOSX/images/x.png': b'x', f'{prefix}images/.DS_Store': b'x', 'info.txt': b'x'}
    )
    made = unpack(path, tmp_path / 'out')
    names = [f'{kind}/N38E032_000_{index:03d}.png' for kind in ('images', 'masks') for index in range(3)]
    assert files(tmp_path / 'out') == ['manifest.json'] + [f'train/{name}' for name in names]
    assert (tmp_path / 'out' / 'train' / names[2]).read_bytes() == make_pair(2)[0]
    assert made['train']['pairs'] == 3
    # One mask of 16 pixels for each of the first three classes.
    assert list(made['train']['pixels'].values()) == [16, 16, 16, 0, 0, 0, 0]
    assert made['train']['class_shares']['shrub'] == 33.333


def test_manifest_says_where_the_parts_came_from(tmp_path, make_zip):
    path = make_zip('val')
    unpack(path, tmp_path / 'out')
    entry = json.loads((tmp_path / 'out' / 'manifest.json').read_text())['parts']['val']
    assert entry['source'] == dict(archive='val.zip', md5=md5(path))
    assert entry['complete'] is True
    assert entry['pairs'] == 3


def test_parts_are_chosen_and_added_later(tmp_path, make_zip):
    make_zip('train')
    path = make_zip('val', count=2)
    assert list(unpack(path, tmp_path / 'out', parts=['val'])) == ['val']
    assert not (tmp_path / 'out' / 'train').exists()
    made = unpack(path, tmp_path / 'out', parts=['train'])
    assert {part: entry['pairs'] for part, entry in made.items()} == dict(val=2, train=3)


def test_wrong_md5_names_file_and_both_sums_and_unpacks_nothing(tmp_path, make_zip):
    path = make_zip('train')
    with pytest.raises(DataError) as caught:
        from_archives(path.parent, tmp_path / 'out', workers=1)
    assert str(path) in str(caught.value)
    assert md5(path) in str(caught.value)
    assert '95cd5caea68c813fd86888f9cd95b627' in str(caught.value)
    assert not (tmp_path / 'out' / 'train').exists()
    assert from_archives(path.parent, tmp_path / 'out', workers=1, verify=False)['train']['pairs'] == 3


def test_a_wrong_second_archive_is_known_before_the_first_is_unpacked(tmp_path, make_zip):
    path, other = make_zip('train'), make_zip('val')
    with pytest.raises(DataError, match=r'val\.zip: MD5 sum'):
        unpack(path, tmp_path / 'out', expected_md5={'train.zip': md5(path), 'val.zip': '0' * 32})
    assert other.exists()
    assert not (tmp_path / 'out' / 'train').exists()


@pytest.mark.parametrize('share', [0.0, 0.5, 0.98])
def test_truncated_archive(tmp_path, make_zip, share):
    path = make_zip('train')
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r'train\.zip: not a whole zip file'):
        unpack(path, tmp_path / 'out')


def test_damaged_member_leaves_no_file_under_its_name(tmp_path, make_zip, make_pair):
    path = make_zip('train')
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as zipped:
        info = zipped.getinfo('images/N38E032_000_001.png')
    start = info.header_offset + 30 + len(info.filename)
    data[start + info.compress_size // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"member 'images/N38E032_000_001\.png' cannot be read"):
        unpack(path, tmp_path / 'out')
    assert 'train/images/N38E032_000_001.png' not in files(tmp_path / 'out')
    assert not any('.part' in name for name in files(tmp_path / 'out'))


@pytest.mark.parametrize(
    'name', ['../evil.png', '/tmp/evil.png', 'images/../../evil.png', '..\\evil.png', 'C:/evil.png']
)
def test_member_that_leads_out_of_the_folder(tmp_path, make_zip, name):
    path = make_zip('train', extra={name: b'x'})
    with pytest.raises(DataError, match='unsafe name'):
        unpack(path, tmp_path / 'out')
    assert files(tmp_path / 'out') == ['manifest.json']
    assert not list(tmp_path.glob('evil*'))


def test_member_that_is_a_link(tmp_path, make_zip):
    path = make_zip('train')
    link = zipfile.ZipInfo('images/link.png')
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, 'a') as zipped:
        zipped.writestr(link, '/etc/passwd')
    with pytest.raises(DataError, match=r"'images/link\.png' has an unsafe name or is a link"):
        unpack(path, tmp_path / 'out')


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        ({'images/b.png': b'x', 'images/a.png': b'x'}, '2 images have no mask of the same stem in masks/: a, b'),
        ({'masks/a.png': b'x'}, '1 masks have no image of the same stem in images/: a'),
        ({'labels/a.png': b'x'}, r"'labels/a\.png': images must lie in images/ or masks/"),
        ({'train/images/N38E032_000_000.png': b'x'}, 'would both become images/N38E032_000_000.png'),
        ({'images/N38E032_000_000.jpg': b'x'}, 'images with the same stem: N38E032_000_000'),
    ],
)
def test_archive_of_other_content(tmp_path, make_zip, extra, message):
    with pytest.raises(DataError, match=message):
        unpack(make_zip('train', extra=extra), tmp_path / 'out')


def test_many_missing_masks_are_not_all_listed(tmp_path, make_zip):
    extra = {f'images/m{index}.png': b'x' for index in range(9)}
    with pytest.raises(DataError, match=r'9 images have no mask.*: m0, m1, m2, m3, m4 and 4 more'):
        unpack(make_zip('train', extra=extra), tmp_path / 'out')


def test_unknown_colour_is_an_error_and_the_part_stays_unfinished(tmp_path, make_zip):
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[:] = (0, 100, 0)
    mask[2, 3] = (1, 2, 3)
    path = make_zip('train', extra={'images/x.png': encode_png(mask), 'masks/x.png': encode_png(mask)})
    with pytest.raises(DataError, match=r'x\.png: colour \(1, 2, 3\) at row 2, column 3'):
        unpack(path, tmp_path / 'out')
    assert json.loads((tmp_path / 'out' / 'manifest.json').read_text())['parts']['train']['complete'] is False


def test_interrupted_unpacking_is_continued(tmp_path, make_zip, monkeypatch):
    path, out, write, written = make_zip('train'), tmp_path / 'out', archives_module.write_bytes, []

    def stop_at_the_fourth(target, data):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(target)
        write(target, data)

    monkeypatch.setattr(archives_module, 'write_bytes', stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        unpack(path, out)
    stamps = {target: target.stat().st_mtime_ns for target in written}
    # What a killed process leaves: a temporary file.
    (out / 'train' / 'images' / '.N38E032_000_002.png.77.part').write_bytes(b'half')

    rewritten = []
    monkeypatch.setattr(archives_module, 'write_bytes', lambda *job: (rewritten.append(job[0]), write(*job)))
    monkeypatch.setattr(module, 'md5_of', lambda path: pytest.fail('the sum of an unchanged archive is on record'))
    made = unpack(path, out)
    assert made['train']['pairs'] == 3
    assert len(rewritten) == 3
    assert {target: target.stat().st_mtime_ns for target in written} == stamps
    assert not any('.part' in name for name in files(out))


def test_finished_part_is_not_unpacked_again(tmp_path, make_zip, monkeypatch):
    path = make_zip('train')
    first = unpack(path, tmp_path / 'out')
    monkeypatch.setattr(module, 'unpack', lambda *_: pytest.fail('unpacked again'))
    assert unpack(path, tmp_path / 'out') == first


def test_file_of_other_content_is_never_overwritten_in_silence(tmp_path, make_zip, make_pair):
    path, out = make_zip('train'), tmp_path / 'out'
    unpack(path, out)
    changed, lost = (out / 'train' / 'images' / f'N38E032_000_00{index}.png' for index in (0, 1))
    # As long as the file in the archive: only its sum tells them apart.
    mine = b'my own picture'.ljust(changed.stat().st_size)
    changed.write_bytes(mine)
    lost.unlink()
    with pytest.raises(DataError, match=r'N38E032_000_000\.png: is there with other content'):
        unpack(path, out)
    assert changed.read_bytes() == mine
    unpack(path, out, overwrite=True)
    assert changed.read_bytes() == make_pair(0)[0]


def test_overwrite_mends_a_finished_part(tmp_path, make_zip, make_pair):
    path, out = make_zip('train'), tmp_path / 'out'
    unpack(path, out)
    changed = out / 'train' / 'images' / 'N38E032_000_000.png'
    changed.write_bytes(b'other')
    unpack(path, out)
    assert changed.read_bytes() == b'other'
    unpack(path, out, overwrite=True)
    assert changed.read_bytes() == make_pair(0)[0]


def test_another_archive_for_the_same_part_is_refused(tmp_path, make_zip):
    unpack(make_zip('train'), tmp_path / 'out')
    path = make_zip('train', count=2)
    with pytest.raises(InputError, match=r"part 'train' is there already and was made from archives"):
        unpack(path, tmp_path / 'out')
    assert len(list((tmp_path / 'out' / 'train' / 'images').iterdir())) == 3
    assert unpack(path, tmp_path / 'out', overwrite=True)['train']['pairs'] == 2


def test_folder_of_something_else_is_refused(tmp_path, make_zip):
    path, out = make_zip('train'), tmp_path / 'out'
    (out / 'train').mkdir(parents=True)
    (out / 'train' / 'notes.txt').write_text('mine')
    with pytest.raises(InputError, match=r'is not empty and has no manifest\.json'):
        unpack(path, out)
    assert files(out) == ['train/notes.txt']


def test_missing_archive_is_named(tmp_path, make_zip):
    make_zip('train')
    with pytest.raises(DataError, match=r'lacks val\.zip'):
        from_archives(tmp_path / 'zips', tmp_path / 'out', parts=['train', 'val'])
    with pytest.raises(DataError, match='no such folder'):
        from_archives(tmp_path / 'nowhere', tmp_path / 'out')
    with pytest.raises(ConfigError, match=r"parts \['trian'\]"):
        from_archives(tmp_path / 'zips', tmp_path / 'out', parts=['trian'])


@pytest.fixture
def shard_dir(tmp_path, make_pair):
    """Two shards of train with three pairs, one of validation with one."""
    folder = tmp_path / 'shards' / 'data'
    train, val = ShardWriter(folder, 'train', 3, 2), ShardWriter(folder, 'validation', 1, 2)
    for index in range(3):
        train.add(f'N38E032_000_{index:03d}.png', *make_pair(index, label=index))
    val.add('N38E032_001_000.png', *make_pair(9, label=6))
    return tmp_path / 'shards'


def test_shards_become_folders(tmp_path, shard_dir, make_pair):
    made = from_parquet(shard_dir, tmp_path / 'out', workers=1)
    assert {part: entry['pairs'] for part, entry in made.items()} == dict(train=3, val=1)
    image, mask = make_pair(2, label=2)
    assert (tmp_path / 'out/train/images/N38E032_000_002.png').read_bytes() == image
    assert (tmp_path / 'out/train/masks/N38E032_000_002.png').read_bytes() == mask
    assert made['val']['class_shares']['water'] == 100


def test_interrupted_shards_are_continued(tmp_path, shard_dir, monkeypatch):
    write, written = module.write_bytes, []

    def stop_at_the_third(target, data):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(target)
        write(target, data)

    monkeypatch.setattr(module, 'write_bytes', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        from_parquet(shard_dir, tmp_path / 'out', parts=['train'], workers=1)
    stamps = [target.stat().st_mtime_ns for target in written]
    monkeypatch.undo()
    assert from_parquet(shard_dir, tmp_path / 'out', parts=['train'], workers=1)['train']['pairs'] == 3
    assert [target.stat().st_mtime_ns for target in written] == stamps


def test_shards_do_not_mix_with_a_folder_from_archives(tmp_path, shard_dir, make_zip):
    unpack(make_zip('test'), tmp_path / 'out')
    with pytest.raises(InputError, match=r"another source \(archives: test\), this run makes 'parquet'"):
        from_parquet(shard_dir, tmp_path / 'out', workers=1)


def test_missing_shard_is_named(tmp_path, shard_dir):
    (shard_dir / 'data' / 'train-00000-of-00002.parquet').unlink()
    with pytest.raises(DataError, match=r"shards of 'train' are not one whole set.*missing \[0\]"):
        from_parquet(shard_dir, tmp_path / 'out', workers=1)


def test_truncated_shard_is_named(tmp_path, shard_dir):
    path = shard_dir / 'data' / 'train-00001-of-00002.parquet'
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r'train-00001-of-00002\.parquet: not a whole parquet file'):
        from_parquet(shard_dir, tmp_path / 'out', workers=1)


def test_shard_of_other_columns(tmp_path):
    (tmp_path / 'shards').mkdir()
    pq.write_table(pa.table({'image': [b'x'], 'label': [1]}), tmp_path / 'shards' / 'train-00000-of-00001.parquet')
    with pytest.raises(DataError, match=r"'conditioning_image' of type struct.*found .*image: binary.*label"):
        from_parquet(tmp_path / 'shards', tmp_path / 'out', workers=1)


def test_folder_without_shards(tmp_path):
    (tmp_path / 'table.parquet').write_bytes(b'x')
    with pytest.raises(DataError, match='no shard is below it'):
        from_parquet(tmp_path, tmp_path / 'out', workers=1)


def test_row_without_mask_or_with_the_name_of_another(tmp_path, make_pair):
    image, mask = make_pair(1)
    writer = ShardWriter(tmp_path / 'a', 'train', 2, 2)
    writer.add('a.png', image, mask)
    writer.add('b.png', image, b'')
    with pytest.raises(DataError, match=r'train-00000-of-00001\.parquet, row 1: has no mask'):
        from_parquet(tmp_path / 'a', tmp_path / 'out_a', workers=1)
    writer = ShardWriter(tmp_path / 'b', 'train', 2, 2)
    writer.add('a.png', image, mask)
    writer.add('a.png', image, mask)
    with pytest.raises(DataError, match=r'a\.png is also in train-00000'):
        from_parquet(tmp_path / 'b', tmp_path / 'out_b', workers=1)


def test_command_line_ends_with_counts_and_shares(tmp_path, make_zip, shard_dir, capsys):
    make_zip('train')
    assert main(['archives', str(tmp_path / 'zips'), str(tmp_path / 'a'), '--no-verify', '--workers', '1']) == 0
    assert '33.33' in capsys.readouterr().out
    assert main(['parquet', str(shard_dir), str(tmp_path / 'b'), '--parts', 'val', '--workers', '1']) == 0
    assert '100.00' in capsys.readouterr().out


def test_script_prints_one_line_for_bad_data(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, 'archives', tmp_path, tmp_path / 'out'], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {tmp_path}: lacks train.zip, val.zip, test.zip, synth.zip')
    assert done.stderr.count('\n') == 1
