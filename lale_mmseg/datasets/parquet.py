"""Random access to images stored in parquet shards, memory-mapped and without unpacking.

Hugging Face's image features are structs of `bytes` (an encoded image) and `path` (its name, may be null). A parquet
file can be read by row group at the least, so decoded groups are kept while they are likely to be asked for again.
"""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError


class ParquetShards:
    """Rows of several parquet files as one list of tuples of bytes.

    Instances may be pickled and forked: each process opens the files for itself.

    Args:
        paths: Shards, in order.
        columns: Names of the image columns to read.
        cache_bytes: Size of the row groups kept in memory by each process, in bytes; at least one is kept.

    Raises:
        DataError: A shard is not a parquet file or lacks a column.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[str], cache_bytes: int = 256 * 2**20) -> None:
        self.paths = [Path(path) for path in paths]
        self.columns = list(columns)
        self.cache_bytes = cache_bytes
        self.names: list[str] = []
        self._group_starts: list[int] = []  # first row of each row group, over all shards
        self._groups: list[tuple[int, int]] = []  # (shard, row group in it)
        for shard in range(len(self.paths)):
            self._index_shard(shard)
        if len(set(self.names)) < len(self.names):  # stored names may start anew in every shard
            self.names = [name for path in self.paths for name in _numbered(path)]
        self._reset()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> tuple[bytes, ...]:
        """Encoded images of one row, one for each column."""
        position = bisect.bisect_right(self._group_starts, row) - 1
        columns = self._read_group(position)
        offset = row - self._group_starts[position]
        contents = tuple(column[offset].as_py() for column in columns)
        for name, content in zip(self.columns, contents, strict=True):
            if not content:
                raise DataError(f'{self.describe(row)}: no bytes in column {name!r}')
        return contents

    def describe(self, row: int) -> str:
        """Name of a row for messages: shard and row in it."""
        position = bisect.bisect_right(self._group_starts, row) - 1
        shard = self._groups[position][0]
        first = next(start for start, group in zip(self._group_starts, self._groups, strict=True) if group[0] == shard)
        return f'{self.paths[shard]}, row {row - first}'

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ('_files', '_cache')}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._files: dict[int, pq.ParquetFile] = {}
        self._cache: OrderedDict[int, list[pa.ChunkedArray]] = OrderedDict()

    def _index_shard(self, shard: int) -> None:
        path = self.paths[shard]
        try:
            file = pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f'{path}: not a readable parquet file ({error})') from None
        with file:
            fields = set(file.schema_arrow.names)
            missing = [column for column in self.columns if column not in fields]
            if missing:
                raise DataError(f'{path}: no column {missing[0]!r}; it has {", ".join(sorted(fields))}')
            for column in self.columns:
                kind = file.schema_arrow.field(column).type
                if not (pa.types.is_struct(kind) and kind.get_field_index('bytes') >= 0):
                    raise DataError(f'{path}: column {column!r} is {kind}; a struct of bytes and path is due')
            names = self._names(file, path)
            start = len(self.names)
            for group in range(file.num_row_groups):
                self._group_starts.append(start)
                self._groups.append((shard, group))
                start += file.metadata.row_group(group).num_rows
            self.names.extend(names)

    def _names(self, file: pq.ParquetFile, path: Path) -> list[str]:
        """Stem of each row: the stored path where all rows have different ones, else shard and row number."""
        fallback = [f'{path.stem}_{row:06d}' for row in range(file.metadata.num_rows)]
        if file.schema_arrow.field(self.columns[0]).type.get_field_index('path') < 0:
            return fallback
        table = file.read(columns=[f'{self.columns[0]}.path'])
        paths = [entry['path'] for entry in table.column(0).to_pylist()]
        stems = [Path(entry).stem for entry in paths if entry]
        return stems if len(set(stems)) == len(fallback) else fallback

    def _read_group(self, position: int) -> list[pa.ChunkedArray]:
        if self._pid != os.getpid():  # after a fork the open files belong to the parent
            self._reset()
        if position in self._cache:
            self._cache.move_to_end(position)
            return self._cache[position]
        shard, group = self._groups[position]
        if shard not in self._files:
            self._files[shard] = pq.ParquetFile(self.paths[shard], memory_map=True)
        columns = [f'{column}.bytes' for column in self.columns]
        table = self._files[shard].read_row_group(group, columns=columns, use_threads=False)
        arrays = [_bytes_of(table.column(column)) for column in self.columns]
        self._cache[position] = arrays
        while len(self._cache) > 1 and self._cached_bytes() > self.cache_bytes:
            self._cache.popitem(last=False)
        return arrays

    def _cached_bytes(self) -> int:
        return sum(array.nbytes for arrays in self._cache.values() for array in arrays)


def _numbered(path: Path) -> list[str]:
    """Names made of the shard's and the row's number."""
    with pq.ParquetFile(path, memory_map=True) as file:
        return [f'{path.stem}_{row:06d}' for row in range(file.metadata.num_rows)]


def _bytes_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.field('bytes') for chunk in column.chunks])
