"""Parquet shards as ARAS400k publishes them.

Two columns in the way Hugging Face stores images, a struct of the file's bytes and its name: `image` is the satellite
image, `conditioning_image` its RGB mask (the set also trains a generator that is conditioned on the mask).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep._files import whole_file
from lale_mmseg.errors import DataError

IMAGE_COLUMN = 'image'
MASK_COLUMN = 'conditioning_image'
ROWS_PER_GROUP = 100

_SHARD = re.compile(r'(?P<part>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})\.parquet')
#: The hub's usual names of splits, and ours.
_PART_NAMES = {'validation': 'val'}

_FILE = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
_FEATURES = {'info': {'features': {name: {'_type': 'Image'} for name in (IMAGE_COLUMN, MASK_COLUMN)}}}
SCHEMA = pa.schema([(IMAGE_COLUMN, _FILE), (MASK_COLUMN, _FILE)], {'huggingface': json.dumps(_FEATURES)})


def shard_paths(folder: Path, part: str, rows: int, rows_per_shard: int) -> list[Path]:
    """Names of the shards of a part."""
    count = max(-(-rows // rows_per_shard), 1)
    return [folder / f'{part}-{index:05d}-of-{count:05d}.parquet' for index in range(count)]


class ShardWriter:
    """Collects pairs and writes a shard whenever one is full.

    Args:
        folder: Where the shards go; made if missing.
        part: Name of the part.
        rows: Number of pairs that will be added.
        rows_per_shard: Pairs in each shard but the last.
    """

    def __init__(self, folder: Path, part: str, rows: int, rows_per_shard: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = shard_paths(folder, part, rows, rows_per_shard)
        self._left = rows
        self._rows_per_shard = rows_per_shard
        self._rows: list[dict] = []
        self._shards: Iterator[Path] = iter(self._paths)

    def add(self, name: str, image: bytes, mask: bytes) -> None:
        """Adds a pair of image files that share a name."""
        self._rows.append({IMAGE_COLUMN: dict(bytes=image, path=name), MASK_COLUMN: dict(bytes=mask, path=name)})
        self._left -= 1
        if len(self._rows) == self._rows_per_shard or self._left == 0:
            table = pa.Table.from_pylist(self._rows, SCHEMA)
            with whole_file(next(self._shards)) as temporary:
                pq.write_table(table, temporary, row_group_size=ROWS_PER_GROUP)
            self._rows = []


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """Shards below a folder, by part and in order.

    Raises:
        DataError: There is none, or shards of a part are missing or come from two conversions.
    """
    found: dict[str, dict[int, Path]] = {}
    totals: dict[str, set[int]] = {}
    for path in sorted(folder.rglob('*.parquet')):
        match = _SHARD.fullmatch(path.name)
        if match is None or path.name.startswith('.'):
            continue
        part = _PART_NAMES.get(match['part'], match['part'])
        shards = found.setdefault(part, {})
        index = int(match['index'])
        if index in shards:
            raise DataError(f'{path} and {shards[index]}: two shards of the same part and number')
        shards[index] = path
        totals.setdefault(part, set()).add(int(match['total']))
    if not found:
        raise DataError(f'{folder}: no shard is below it; names such as train-00000-of-00010.parquet are due')
    for part, shards in found.items():
        total = max(totals[part])
        missing = sorted(set(range(total)) - set(shards))
        if len(totals[part]) > 1 or missing or max(shards) >= total:
            raise DataError(
                f'{folder}: shards of {part!r} are not one whole set: '
                f'numbers {sorted(shards)} of {sorted(totals[part])}' + (f', missing {missing}' if missing else '')
            )
    return {part: [shards[index] for index in sorted(shards)] for part, shards in found.items()}


def count_rows(shard: Path) -> int:
    """Number of pairs in a shard; raises DataError if it is damaged or lacks a column."""
    return _opened(shard).metadata.num_rows


def read_rows(shard: Path) -> Iterator[tuple[str, bytes, str, bytes]]:
    """Pairs of a shard: name and content of the image file, name (of the same stem) and content of the mask file.

    Raises:
        DataError: The shard is damaged, lacks a column, or a row lacks an image or its name.
    """
    row = 0
    try:
        for batch in _opened(shard).iter_batches(ROWS_PER_GROUP, columns=[IMAGE_COLUMN, MASK_COLUMN]):
            for pair in batch.to_pylist():
                cells = pair[IMAGE_COLUMN] or {}, pair[MASK_COLUMN] or {}
                image, mask = (cell.get('bytes') for cell in cells)
                name = PurePosixPath((cells[0].get('path') or '').replace('\\', '/')).name
                if not image or not mask or not name:
                    lacking = 'image' if not image else 'mask' if not mask else 'name of the image'
                    raise DataError(f'{shard}, row {row}: has no {lacking}')
                suffix = PurePosixPath(cells[1].get('path') or '').suffix or '.png'
                yield name, image, PurePosixPath(name).stem + suffix, mask
                row += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f'{shard}: cannot be read after row {row} ({error}); the file is damaged') from None


def _opened(shard: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(shard, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f'{shard}: not a whole parquet file ({error})') from None
    for column in (IMAGE_COLUMN, MASK_COLUMN):
        if column not in file.schema_arrow.names or not pa.types.is_struct(file.schema_arrow.field(column).type):
            raise DataError(
                f'{shard}: columns {IMAGE_COLUMN!r} and {MASK_COLUMN!r} of type struct<bytes, path> are due, '
                f'found {[str(field) for field in file.schema_arrow]}'
            )
    return file
