"""Reads and writes parquet shards as ARAS400k publishes them, and unpacks them into folders.

A shard has two columns in the format of Hugging Face, structs of a file's bytes and its name: `image` is the satellite
image, `conditioning_image` its RGB mask (the data also train a generator that is conditioned on the mask).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.core.prepared import Prepared, Unit
from data_prep.core.sources import identity_of, reading
from data_prep.datasets.aras400k.pairs import Job, Pair, make_all
from lale_mmseg.errors import DataError
from lale_mmseg.files import atomic_path

IMAGE_COLUMN = 'image'
MASK_COLUMN = 'conditioning_image'
ROWS_PER_GROUP = 100

_SHARD = re.compile(r'(?P<part>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})\.parquet')
#: Names of splits on the Hugging Face hub, and ours.
_PART_NAMES = {'validation': 'val'}

_FILE = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
_FEATURES = {'info': {'features': {name: {'_type': 'Image'} for name in (IMAGE_COLUMN, MASK_COLUMN)}}}
SCHEMA = pa.schema([(IMAGE_COLUMN, _FILE), (MASK_COLUMN, _FILE)], {'huggingface': json.dumps(_FEATURES)})


def shard_names(part: str, rows: int, rows_per_shard: int) -> list[str]:
    """File names of the shards of a part."""
    count = max(-(-rows // rows_per_shard), 1)
    return [f'{part}-{index:05d}-of-{count:05d}.parquet' for index in range(count)]


class ShardWriter:
    """Collects pairs and writes a shard whenever one is full.

    Args:
        paths: The shards, as `shard_names` gives them.
        rows: Number of pairs that will be added.
        rows_per_shard: Pairs in each shard but the last.
    """

    def __init__(self, paths: Sequence[Path], rows: int, rows_per_shard: int) -> None:
        self._left = rows
        self._rows_per_shard = rows_per_shard
        self._rows: list[dict] = []
        self._shards = iter(paths)

    def add(self, name: str, image: bytes, mask: bytes) -> None:
        """Adds a pair of image files that share a name."""
        self._rows.append({IMAGE_COLUMN: dict(bytes=image, path=name), MASK_COLUMN: dict(bytes=mask, path=name)})
        self._left -= 1
        if len(self._rows) == self._rows_per_shard or self._left == 0:
            table = pa.Table.from_pylist(self._rows, SCHEMA)
            with atomic_path(next(self._shards)) as temporary:
                pq.write_table(table, temporary, row_group_size=ROWS_PER_GROUP)
            self._rows = []


def from_parquet(
    shard_dir: str | Path,
    out: str | Path,
    parts: Sequence[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> dict[str, dict]:
    """Unpacks parquet shards into folders.

    Args:
        shard_dir: Folder with shards such as `train-00000-of-00010.parquet`, at any depth.
        out: Folder to unpack to.
        parts: Which parts; None for all that are found.
        overwrite, workers: See `from_archives`, also for the result.

    Raises:
        DataError: Shards are missing or damaged, or have unexpected content.
        InputError: `out` holds something else, or another process is writing to it.
    """
    folder = Prepared(Path(out), 'parquet')
    found = find_shards(Path(shard_dir))
    missing = sorted(set(parts or ()) - set(found))
    if missing:
        raise DataError(f'{shard_dir}: has no shards of {missing}, only of {sorted(found)}')
    jobs = []
    for part in parts or found:
        for index, shard in enumerate(found[part]):
            unit = Unit(f'{part}-{index:04d}', {}, dict(shard=identity_of(shard)), group=part)
            jobs.append(Job(folder, unit, read_rows, (shard, part)))
    return make_all(folder, jobs, overwrite, workers, 'unpacking')


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """Finds the shards below a folder, by part and in order.

    Raises:
        DataError: There is none, or the shards of a part are incomplete or come from two conversions.
    """
    found: dict[str, list[tuple[int, int, Path]]] = {}
    for path in sorted(folder.rglob('*.parquet')):
        match = _SHARD.fullmatch(path.name)
        if match is not None and not path.name.startswith('.'):
            part = _PART_NAMES.get(match['part'], match['part'])
            found.setdefault(part, []).append((int(match['index']), int(match['total']), path))
    if not found:
        raise DataError(f'{folder}: no shard found; expected names such as train-00000-of-00010.parquet')
    for part, shards in found.items():
        total = shards[0][1]
        if sorted((index, of) for index, of, _ in shards) != [(index, total) for index in range(total)]:
            names = ', '.join(path.name for _, _, path in shards)
            raise DataError(f'{folder}: shards of {part!r} are not one complete set: {names}')
    return {part: [path for _, _, path in sorted(shards)] for part, shards in found.items()}


def read_rows(shard: Path, part: str) -> Iterator[Pair]:
    """Yields the pairs of a shard.

    Raises:
        DataError: The shard is damaged, or a row lacks an image or its name.
    """
    row = 0
    with reading(str(shard), pa.ArrowInvalid):
        for batch in _opened(shard).iter_batches(ROWS_PER_GROUP, columns=[IMAGE_COLUMN, MASK_COLUMN]):
            for pair in batch.to_pylist():
                cells = pair[IMAGE_COLUMN] or {}, pair[MASK_COLUMN] or {}
                image, mask = (cell.get('bytes') for cell in cells)
                # Names may contain the folders of whoever made the shard.
                paths = [PurePosixPath((cell.get('path') or '').replace('\\', '/')) for cell in cells]
                if not image or not mask or not paths[0].name:
                    raise DataError(f'{shard}, row {row}: lacks its image, its mask or its name')
                mask_name = paths[0].stem + (paths[1].suffix or '.png')
                yield Pair(part, paths[0].name, image, mask_name, mask, f'{shard}, row {row}')
                row += 1


def _opened(shard: Path) -> pq.ParquetFile:
    file = pq.ParquetFile(shard, memory_map=True)
    for column in (IMAGE_COLUMN, MASK_COLUMN):
        if column not in file.schema_arrow.names or not pa.types.is_struct(file.schema_arrow.field(column).type):
            raise DataError(
                f'{shard}: expected columns {IMAGE_COLUMN!r} and {MASK_COLUMN!r} of type struct<bytes, path>, '
                f'found {[str(field) for field in file.schema_arrow]}'
            )
    return file
