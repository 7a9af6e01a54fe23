"""What a run prepares: settings, tiles, what is cut into windows and what is kept whole; all checked before writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from data_prep._isprs_source import BANDS, FULL, IMAGE, LABEL_KINDS, Key, SourceFile, Wanted, describe_kind
from data_prep._progress import map_jobs, progress_bar
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.metainfo import Palette, isprs
from lale_mmseg.metainfo.protocols import find_protocol

MASKS = ('index', 'rgb')
#: Largest distance of a colour that is taken as a class. Two class colours are at least 255 apart, so at 60 the
#: nearest one is more than three times nearer than any other.
MAX_DISTANCE = 60.0
#: Half of the distance between two class colours: beyond it the nearest class says nothing.
_DISTANCE_LIMIT = 127.0
_SHOWN = 5


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        dataset: 'potsdam' or 'vaihingen'.
        size: Side of the windows in pixels.
        stride: Step from one window to the next.
        bands: 'rgb', 'irrg' or 'rgbir'; Vaihingen has 'irrg' alone.
        masks: 'index' for class indexes, 'rgb' for colours.
        labels: Kinds of labels, which every tile must have; None for those that are there, and that the protocols need.
        tiles: Tiles; None for those of the protocols, or all that are there.
        protocols: Names or letters; none for windows and whole tiles of everything.
        max_distance: Take colours off the palette as the nearest class within this distance; None: they are errors.
    """

    dataset: str
    size: int = 512
    stride: int = 256
    bands: str = 'rgb'
    masks: str = 'index'
    labels: tuple[str, ...] | None = None
    tiles: tuple[str, ...] | None = None
    protocols: tuple[str, ...] = ()
    max_distance: float | None = None

    def __post_init__(self) -> None:
        if self.dataset not in isprs.TILES:
            raise ConfigError(f'data set {self.dataset!r}: must be among {", ".join(isprs.TILES)}')
        if self.size < 1 or self.stride < 1:
            raise ConfigError(f'--size {self.size} --stride {self.stride}: both must be at least 1 pixel')
        if self.stride > self.size:
            raise ConfigError(
                f'--stride {self.stride} is over --size {self.size}: pixels between the windows would be lost; '
                f'at most {self.size} is due'
            )
        allowed = ('irrg',) if self.dataset == 'vaihingen' else tuple(BANDS)
        if self.bands not in allowed:
            raise ConfigError(f'--bands {self.bands}: {self.dataset} has {", ".join(allowed)}')
        if self.masks not in MASKS:
            raise ConfigError(f'--masks {self.masks}: must be among {", ".join(MASKS)}')
        if self.max_distance is not None and not 0 < self.max_distance <= _DISTANCE_LIMIT:
            raise ConfigError(
                f'--max-distance {self.max_distance:g}: more than 0 and at most {_DISTANCE_LIMIT:g} is due; two class '
                'colours are 255 apart'
            )
        for kind in self.labels or ():
            if kind not in LABEL_KINDS:
                raise ConfigError(f'--labels {kind}: must be among {", ".join(LABEL_KINDS)}')
        strange = [tile for tile in self.tiles or () if tile not in isprs.TILES[self.dataset]]
        if strange:
            known = ' '.join(isprs.TILES[self.dataset])
            raise ConfigError(f'--tiles {" ".join(strange)}: {self.dataset} has no such tile; it has {known}')
        if self.labels == () or self.tiles == ():
            raise ConfigError('--labels and --tiles: name at least one')
        self._check_protocols()

    def _check_protocols(self) -> None:
        for name in self.protocols:
            protocol = find_protocol(name)
            protocol.split(self.dataset)
            needed = {protocol.train_labels, protocol.test_labels}
            if self.labels is not None and not needed <= set(self.labels):
                raise ConfigError(
                    f'--labels {" ".join(self.labels)}: protocol {protocol.name!r} needs {" and ".join(sorted(needed))}'
                    ' labels; leave --labels out'
                )
        used = {tile for roles in self._roles().values() for tile in roles}
        unused = [tile for tile in self.tiles or () if self.protocols and tile not in used]
        if unused:
            raise ConfigError(f'--tiles {" ".join(unused)}: not used by --protocol {" ".join(self.protocols)}')

    @property
    def label_kinds(self) -> tuple[str, ...]:
        """Kinds of labels that are looked for."""
        # Also those that no protocol needs: so the next protocol finds its tiles made, and adds what it lacks.
        return LABEL_KINDS if self.labels is None else tuple(kind for kind in LABEL_KINDS if kind in self.labels)

    @property
    def wanted(self) -> Wanted:
        """What is looked for in the source."""
        return Wanted(self.dataset, self.bands, self.label_kinds)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the content of the files of one tile."""
        return dict(
            size=self.size, stride=self.stride, bands=self.bands, masks=self.masks, max_distance=self.max_distance
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def plan(self, found: Mapping[Key, SourceFile]) -> list[TilePlan]:
        """The tiles to prepare and their files.

        Raises:
            DataError: A tile lacks its image or labels that are needed, or nothing is there.
        """
        wanted, roles = self.wanted, self._roles()
        if self.protocols:
            every = {tile for split in roles.values() for tile in split}
            chosen = [tile for tile in isprs.TILES[self.dataset] if tile in (self.tiles or every) and tile in every]
        else:
            there = self.tiles or {tile for tile, _ in found}
            chosen = [tile for tile in isprs.TILES[self.dataset] if tile in there]
        plans, missing = [], []
        for tile in chosen:
            kinds = [kind for kind in wanted.labels if (tile, kind) in found]
            due = self._due(tile, roles)
            if not due and not kinds:
                missing.append(f'tile {tile}: labels ({" or ".join(wanted.file_name(tile, k) for k in wanted.labels)})')
            for kind in (IMAGE, *due):
                if (tile, kind) not in found:
                    missing.append(f'tile {tile}: {describe_kind(kind)} ({wanted.file_name(tile, kind)})')
            windows = not self.protocols or tile in roles['train']
            whole = not self.protocols or tile in roles['test']
            files = {kind: found[tile, kind] for kind in (IMAGE, *kinds) if (tile, kind) in found}
            plans.append(TilePlan(tile, isprs.tile_stem(self.dataset, tile), windows, whole, files))
        if missing or not plans:
            self._raise_missing(missing, found)
        return plans

    def _roles(self) -> dict[str, set[str]]:
        """Tiles that the protocols train on, and that they validate or test on; those of clean splits included."""
        roles: dict[str, set[str]] = {'train': set(), 'test': set()}
        for name in self.protocols:
            for clean in (False, True):
                split = find_protocol(name).split(self.dataset, clean)
                roles['train'] |= set(split.train)
                roles['test'] |= {*split.val, *split.test}
        return roles

    def _due(self, tile: str, roles: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        """Kinds of labels that a tile must have."""
        if self.labels is not None:
            return self.label_kinds
        due = set()
        for name in self.protocols:
            protocol = find_protocol(name)
            for clean in (False, True):
                split = protocol.split(self.dataset, clean)
                due |= {protocol.train_labels} if tile in split.train else set()
                due |= {protocol.test_labels} if tile in (*split.val, *split.test) else set()
        return tuple(kind for kind in LABEL_KINDS if kind in due)

    def _raise_missing(self, missing: Sequence[str], found: Mapping[Key, SourceFile]) -> None:
        counts = ', '.join(
            f'{sum(kind == other for _, other in found)} {kind if kind == IMAGE else f"{kind} label"} files'
            for kind in (IMAGE, *self.wanted.labels)
        )
        if not missing:
            example = self.wanted.file_name(isprs.TILES[self.dataset][0], IMAGE)
            raise DataError(f'no tile of {self.dataset} was found; looked for files such as {example}')
        more = f' and {len(missing) - _SHOWN} more' if len(missing) > _SHOWN else ''
        what = f' (protocol {" ".join(self.protocols)})' if self.protocols else ''
        raise DataError(
            f'{self.dataset}{what}: missing {"; ".join(missing[:_SHOWN])}{more}. Found {counts}; '
            'add the archive that has them, or choose with --tiles, --protocol and --labels'
        )


@dataclass(frozen=True)
class TilePlan:
    """One tile: its name, the start of its files' names, what is made of it, and its files by kind."""

    tile: str
    stem: str
    windows: bool
    whole: bool
    files: Mapping[str, SourceFile]

    @property
    def labels(self) -> tuple[str, ...]:
        """Kinds of labels that the tile has."""
        return tuple(kind for kind in LABEL_KINDS if kind in self.files)

    def source(self, request: Request) -> dict[str, Any]:
        """What the tile's files are made from and with, for the manifest."""
        return dict(request.settings, files={kind: self.record(kind) for kind in self.files})

    def record(self, kind: str) -> list:
        """Name, size and mark of a file, for the manifest."""
        file = self.files[kind]
        # Names without folders: the source may be moved, or unpacked one level further.
        return [file.name.rpartition('/')[2], file.size, file.mark]


def palette_of(kind: str) -> Palette:
    """Colours of full labels, or of eroded ones, where black is boundary."""
    return isprs.FULL_PALETTE if kind == FULL else isprs.PALETTE


def check_headers(plans: Sequence[TilePlan], request: Request, workers: int) -> dict[str, tuple[int, int]]:
    """Opens all files of all tiles.

    Returns:
        (height, width) of each tile.

    Raises:
        DataError: A file is unreadable, has other bands or another depth than due, labels have another size than their
            image, or a tile is smaller than a window.
    """
    sizes = {}
    jobs = [(plan, request) for plan in plans]
    with progress_bar('checking headers', len(plans), 'tiles') as advance:
        for plan, size in zip(plans, map_jobs(_check_tile, jobs, min(workers, len(plans)), threads=True), strict=True):
            sizes[plan.tile] = size
            advance(1)
    return sizes


def _check_tile(job: tuple[TilePlan, Request]) -> tuple[int, int]:
    plan, request = job
    sizes = {}
    for kind, file in plan.files.items():
        bands = BANDS[request.bands][1] if kind == IMAGE else 3
        sizes[kind] = _check_header(plan, kind, file, bands)
        height, width = sizes[kind]
        if sizes[kind] != sizes[IMAGE]:
            raise DataError(
                f'tile {plan.tile}: {file.name} has {height}x{width} pixels (height x width), its image '
                f'{plan.files[IMAGE].name} has {sizes[IMAGE][0]}x{sizes[IMAGE][1]}'
            )
    if plan.windows and min(sizes[IMAGE]) < request.size:
        height, width = sizes[IMAGE]
        raise DataError(
            f'tile {plan.tile}: {height}x{width} pixels (height x width) are less than a window of --size '
            f'{request.size}; at most {min(height, width)} fits'
        )
    return sizes[IMAGE]


def _check_header(plan: TilePlan, kind: str, file: SourceFile, bands: int) -> tuple[int, int]:
    try:
        with rasterio.open(file.gdal_path) as opened:
            if opened.count != bands:
                raise DataError(
                    f'tile {plan.tile}: {file.name} has {opened.count} bands, {bands} are due for {describe_kind(kind)}'
                )
            if set(opened.dtypes) != {'uint8'}:
                raise DataError(
                    f'tile {plan.tile}: {file.name} has values of type {opened.dtypes[0]}, 8 bits (uint8) are due'
                )
            if file.member is None:
                # A file that was cut off lacks its end; members of archives have checksums instead.
                opened.read(1, window=Window(0, opened.height - 1, opened.width, 1))
            return opened.height, opened.width
    except RasterioError as error:
        raise DataError(f'tile {plan.tile}: {file.name} cannot be read ({error}); it is damaged or cut off') from None
