"""Random access to images stored in parquet shards, memory-mapped and without unpacking.

Hugging Face stores images as structs of `bytes` (an encoded image) and `path` (its name, may be null). The smallest
unit that can be read from a parquet file is a row group, so recently decoded groups are cached.
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
    """Rows of several parquet files as one sequence of tuples of bytes.

    Instances can be pickled and forked: each process opens the files itself.

    Args:
        paths: Shards, in order.
        columns: Names of the image columns to read.
        cache_bytes: Size of the row groups that each process keeps in memory, in bytes; at least one group is kept.

    Attributes:
        names: Name of each row without suffix: the stored name if all rows of all shards have different ones,
            otherwise shard and row number.

    Raises:
        DataError: A shard is not a parquet file or lacks a column.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[str], cache_bytes: int = 256 * 2**20) -> None:
        self.paths = [Path(path) for path in paths]
        self.columns = list(columns)
        self.cache_bytes = cache_bytes
        self._group_starts: list[int] = []  # first row of each row group, over all shards
        self._groups: list[tuple[int, int]] = []  # (shard, row group within it)
        self._shard_starts: list[int] = []  # first row of each shard
        stored: list[str] = []
        numbered: list[str] = []
        for path in self.paths:
            self._shard_starts.append(len(numbered))
            names, rows = self._index_shard(path)
            stored += names
            numbered += [f'{path.stem}_{row:06d}' for row in range(rows)]
        self.names = stored if len(set(stored)) == len(numbered) else numbered
        self._reset()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> tuple[bytes, ...]:
        """Returns the encoded images of one row, one for each column."""
        position = bisect.bisect_right(self._group_starts, row) - 1
        offset = row - self._group_starts[position]
        contents = tuple(column[offset].as_py() for column in self._read_group(position))
        for name, content in zip(self.columns, contents, strict=True):
            if not content:
                raise DataError(f'{self.describe(row)}: no bytes in column {name!r}')
        return contents

    def describe(self, row: int) -> str:
        """Names a row in messages: its shard and its number there."""
        shard = bisect.bisect_right(self._shard_starts, row) - 1
        return f'{self.paths[shard]}, row {row - self._shard_starts[shard]}'

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ('_files', '_cache')}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._files: dict[int, pq.ParquetFile] = {}
        self._cache: OrderedDict[int, list[pa.ChunkedArray]] = OrderedDict()

    def _index_shard(self, path: Path) -> tuple[list[str], int]:
        """Adds the row groups of the last shard of `_shard_starts`; returns its stored names and number of rows."""
        try:
            file = pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f'{path}: not a readable parquet file ({error})') from None
        with file:
            fields = file.schema_arrow.names
            for column in self.columns:
                if column not in fields:
                    raise DataError(f'{path}: no column {column!r}; it has {", ".join(sorted(fields))}')
                kind = file.schema_arrow.field(column).type
                if not (pa.types.is_struct(kind) and kind.get_field_index('bytes') >= 0):
                    raise DataError(f'{path}: column {column!r} is {kind}, expected a struct of bytes and path')
            start = self._shard_starts[-1]
            for group in range(file.num_row_groups):
                self._group_starts.append(start)
                self._groups.append((len(self._shard_starts) - 1, group))
                start += file.metadata.row_group(group).num_rows
            names: list[str] = []
            if file.schema_arrow.field(self.columns[0]).type.get_field_index('path') >= 0:
                structs = file.read(columns=[f'{self.columns[0]}.path']).column(0).to_pylist()
                names = [Path(struct['path']).stem for struct in structs if struct['path']]
            return names, file.metadata.num_rows

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
        arrays = self._cache[position] = [
            pa.chunked_array([chunk.field('bytes') for chunk in table.column(column).chunks]) for column in self.columns
        ]
        while len(self._cache) > 1 and sum(a.nbytes for kept in self._cache.values() for a in kept) > self.cache_bytes:
            self._cache.popitem(last=False)
        return arrays
