"""Unpacking ARAS400k from archives and parquet shards: checks, safety, continuing, counts."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data_prep.datasets.aras400k.archives as module
from data_prep.aras400k import main
from data_prep.datasets.aras400k.archives import from_archives
from data_prep.datasets.aras400k.parquet import ShardWriter, from_parquet, shard_names
from lale_mmseg.errors import DataError, InputError
from lale_mmseg.files import encode_png


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
    """Images and masks."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob('*.*') if path.parent.name in ('images', 'masks')
    )


@pytest.mark.parametrize('prefix', ['', 'train/'])
def test_archive_with_and_without_a_top_folder(tmp_path, make_zip, make_pair, prefix):
    path = make_zip(
        'train', prefix, extra={'__MACOSX/images/x.png': b'x', f'{prefix}images/.DS_Store': b'x', 'info.txt': b'x'}
    )
    made = unpack(path, tmp_path / 'out')
    names = [f'{kind}/N38E032_000_{index:03d}.png' for kind in ('images', 'masks') for index in range(3)]
    assert files(tmp_path / 'out') == [f'train/{name}' for name in names]
    assert (tmp_path / 'out' / 'train' / names[2]).read_bytes() == make_pair(2)[0]
    assert made['train']['pairs'] == 3
    # One mask of 16 pixels for each of the first three classes.
    assert list(made['train']['pixels'].values()) == [16, 16, 16, 0, 0, 0, 0]
    assert made['train']['class_shares']['shrub'] == 33.333


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


@pytest.mark.parametrize(
    'name', ['/tmp/evil.png', 'images/../../evil.png', '..\\evil.png', 'C:/evil.png', 'images/link']
)
def test_unsafe_member(tmp_path, make_zip, name):
    path, member = make_zip('train'), zipfile.ZipInfo(name)
    member.external_attr = (0o120777 if name.endswith('link') else 0o100644) << 16
    with zipfile.ZipFile(path, 'a') as zipped:
        zipped.writestr(member, '/etc/passwd')
    with pytest.raises(DataError, match='has an unsafe name or is a link'):
        unpack(path, tmp_path / 'out')
    assert files(tmp_path / 'out') == []
    assert not list(tmp_path.glob('evil*'))


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        ({'images/b.png': b'x', 'images/a.png': b'x'}, 'no mask for 2 of 5 pairs: a, b'),
        ({'masks/a.png': b'x'}, 'no image for 1 of 3 pairs: a'),
        ({'labels/a.png': b'x'}, r"'labels/a\.png': images must lie in images/ or masks/"),
        ({'train/images/N38E032_000_000.png': b'x'}, 'images with the same stem: N38E032_000_000'),
    ],
)
def test_archive_of_other_content(tmp_path, make_zip, extra, message):
    with pytest.raises(DataError, match=message):
        unpack(make_zip('train', extra=extra), tmp_path / 'out')


def test_unknown_colour_is_an_error_and_the_part_stays_unfinished(tmp_path, make_zip):
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[:] = (0, 100, 0)
    mask[2, 3] = (1, 2, 3)
    path = make_zip('train', extra={'images/x.png': encode_png(mask), 'masks/x.png': encode_png(mask)})
    with pytest.raises(DataError, match=r'x\.png: colour \(1, 2, 3\) at row 2, column 3'):
        unpack(path, tmp_path / 'out')
    assert files(tmp_path / 'out') == []


def test_interrupted_unpacking_is_continued(tmp_path, make_zip, monkeypatch):
    """With units of one pair each, the second one fails: the first is kept, of the second there is nothing."""
    path, out = make_zip('train'), tmp_path / 'out'
    monkeypatch.setattr(module, 'PAIRS_PER_UNIT', 1)
    with zipfile.ZipFile(path) as zipped:
        info = zipped.getinfo('masks/N38E032_000_001.png')
    content = path.read_bytes()
    at = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
    with pytest.raises(DataError, match=r'train\.zip, masks/N38E032_000_001\.png: cannot be read'):
        unpack(path, out)
    first = out / 'train' / 'images' / 'N38E032_000_000.png'
    assert files(out) == [f'train/{kind}/{first.name}' for kind in ('images', 'masks')]
    stamp = first.stat().st_mtime_ns
    path.write_bytes(content)
    assert unpack(path, out)['train']['pairs'] == 3
    assert first.stat().st_mtime_ns == stamp
    # A finished archive is neither summed nor unpacked again; lost files are.
    monkeypatch.setattr(module, 'md5_of', lambda path: pytest.fail('summed again'))
    first.unlink()
    assert unpack(path, out)['train']['pairs'] == len(list((out / 'train' / 'images').iterdir())) == 3


def test_overwrite_repairs_a_finished_part(tmp_path, make_zip, make_pair):
    path, out = make_zip('train'), tmp_path / 'out'
    unpack(path, out)
    changed = out / 'train' / 'images' / 'N38E032_000_000.png'
    changed.write_bytes(b'other')
    unpack(path, out)
    assert changed.read_bytes() == b'other'
    unpack(path, out, overwrite=True)
    assert changed.read_bytes() == make_pair(0)[0]


def test_another_archive_replaces_the_part(tmp_path, make_zip, monkeypatch):
    monkeypatch.setattr(module, 'PAIRS_PER_UNIT', 2)
    unpack(make_zip('train'), tmp_path / 'out')
    assert unpack(make_zip('train', count=2), tmp_path / 'out')['train']['pairs'] == 2
    assert len(files(tmp_path / 'out')) == 4
    (tmp_path / 'out' / 'train' / 'masks' / 'mine.png').write_bytes(b'mine')
    with pytest.raises(DataError, match=r'train/masks: has 3 files, expected 2'):
        unpack(make_zip('train', count=2), tmp_path / 'out')


def test_folder_of_something_else_is_refused(tmp_path, make_zip):
    path, out = make_zip('train'), tmp_path / 'out'
    (out / 'train').mkdir(parents=True)
    (out / 'train' / 'notes.txt').write_text('mine')
    with pytest.raises(InputError, match=r'is not empty and was not made by this command'):
        unpack(path, out)
    assert [path.name for path in out.rglob('*.*')] == ['notes.txt']


def test_data_of_another_kind_need_overwrite(tmp_path, make_zip, shard_dir):
    unpack(make_zip('test'), tmp_path / 'out')
    with pytest.raises(InputError, match=r'holds archives data, this run makes parquet; .* --overwrite'):
        from_parquet(shard_dir, tmp_path / 'out', workers=1)
    assert list(from_parquet(shard_dir, tmp_path / 'out', overwrite=True, workers=1)) == ['train', 'val']
    assert not (tmp_path / 'out' / 'test' / 'images' / 'N38E032_000_000.png').exists()


def test_missing_archive_is_named(tmp_path, make_zip):
    make_zip('train')
    with pytest.raises(DataError, match=r'val\.zip missing'):
        from_archives(tmp_path / 'zips', tmp_path / 'out', parts=['train', 'val'])


@pytest.fixture
def shard_dir(tmp_path, make_pair):
    """Two shards of train with three pairs, one of validation with one."""
    folder = tmp_path / 'shards' / 'data'
    folder.mkdir(parents=True)
    train = ShardWriter([folder / name for name in shard_names('train', 3, 2)], 3, 2)
    val = ShardWriter([folder / name for name in shard_names('validation', 1, 2)], 1, 2)
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


SHARD = 'train-00000-of-00001.parquet'


def write_rows(folder: Path, *rows: tuple[str, bytes, bytes]) -> None:
    writer = ShardWriter([folder / SHARD], len(rows), len(rows))
    for row in rows:
        writer.add(*row)


def test_incomplete_and_damaged_shards(tmp_path, shard_dir, make_pair):
    """Each of the shards is broken in another way."""
    out = tmp_path / 'out'
    path = shard_dir / 'data' / 'train-00001-of-00002.parquet'
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r'train-00001-of-00002\.parquet: cannot be read'):
        from_parquet(shard_dir, out, workers=1)
    path.unlink()
    with pytest.raises(DataError, match=r"shards of 'train' are not one complete set: train-00000-of-00002"):
        from_parquet(shard_dir, out, workers=1)
    for name in ('columns', 'empty', 'twice'):
        (tmp_path / name).mkdir()
    pq.write_table(pa.table({'image': [b'x'], 'label': [1]}), tmp_path / 'columns' / SHARD)
    image, mask = make_pair(1)
    write_rows(tmp_path / 'empty', ('a.png', image, mask), ('b.png', image, b''))
    write_rows(tmp_path / 'twice', ('a.png', image, mask), ('a.png', image, mask))
    for name, message in (
        ('columns', r"'conditioning_image' of type struct.*found .*image: binary.*label"),
        ('empty', rf'{SHARD}, row 1: lacks its image, its mask'),
        ('twice', 'train/images: has 1 files, expected 2'),
    ):
        with pytest.raises(DataError, match=message):
            from_parquet(tmp_path / name, tmp_path / f'out_{name}', workers=1)


def test_command_line_ends_with_counts_and_shares(tmp_path, make_zip, shard_dir, capsys):
    make_zip('train')
    assert main(['archives', str(tmp_path / 'zips'), str(tmp_path / 'a'), '--no-verify', '--workers', '1']) == 0
    assert '33.33' in capsys.readouterr().out
    assert main(['parquet', str(shard_dir), str(tmp_path / 'b'), '--parts', 'val', '--workers', '1']) == 0
    assert '100.00' in capsys.readouterr().out
