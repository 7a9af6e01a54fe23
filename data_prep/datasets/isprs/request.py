"""What a run prepares: settings, tiles, and which of them become windows or stay whole; checked before writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.core.report import some_of
from data_prep.core.sources import SourceFile
from data_prep.datasets.isprs.sources import IMAGE, LABEL_KINDS, Key, Wanted, describe_kind
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.metainfo import isprs
from lale_mmseg.metainfo.protocols import find_protocol

MASKS = ('index', 'rgb')
#: Largest distance of a colour that --tolerant maps to a class. Class colours are at least 255 apart, so within 60 the
#: nearest class is at less than a third of the distance to any other.
MAX_DISTANCE = 60.0
#: Half the distance between two class colours: beyond it the nearest class means nothing.
DISTANCE_LIMIT = 127.0


@dataclass(frozen=True)
class Request:
    """Options of a run.

    Attributes:
        dataset: 'potsdam' or 'vaihingen'.
        size: Side of the windows in pixels.
        stride: Step from one window to the next.
        bands: 'rgb', 'irrg' or 'rgbir'; Vaihingen has 'irrg' only.
        masks: 'index' for class indexes, 'rgb' for colours.
        labels: Kinds of labels that every tile must have; None for those that exist, and that the protocols need.
        tiles: Tiles; None for those of the protocols, or all that exist.
        protocols: Names or letters; empty for windows and whole tiles of everything.
        max_distance: Map colours outside the palette to the nearest class within this distance; None to reject them.

    Raises:
        ConfigError: Options contradict each other.
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
        needed = {kind for tile in isprs.TILES[self.dataset] for kind in self._protocol_labels(tile)}
        if self.labels is not None and not needed <= set(self.labels):
            raise ConfigError(
                f'--labels {" ".join(self.labels)}: protocols {" ".join(self.protocols)} need '
                f'{" and ".join(sorted(needed))} labels; omit --labels'
            )
        unused = [tile for tile in self.tiles or () if self.protocols and not any(self.products(tile))]
        if unused:
            raise ConfigError(f'--tiles {" ".join(unused)}: not used by --protocol {" ".join(self.protocols)}')

    @property
    def wanted(self) -> Wanted:
        """Files to look for. Labels that no protocol needs are included: the next protocol may need them."""
        kinds = LABEL_KINDS if self.labels is None else tuple(kind for kind in LABEL_KINDS if kind in self.labels)
        return Wanted(self.dataset, self.bands, kinds)

    def products(self, tile: str) -> tuple[bool, bool]:
        """Whether a tile is cut into windows, and whether it is kept whole."""
        if not self.protocols:
            return True, True
        splits = [split for _, split in self._splits()]
        return any(tile in split.train for split in splits), any(tile in (*split.val, *split.test) for split in splits)

    def needed_labels(self, tile: str) -> tuple[str, ...]:
        """Kinds of labels that a tile must have."""
        needed = set(self.wanted.labels) if self.labels is not None else self._protocol_labels(tile)
        return tuple(kind for kind in LABEL_KINDS if kind in needed)

    def _protocol_labels(self, tile: str) -> set[str]:
        needed = set()
        for protocol, split in self._splits():
            needed |= {protocol.train_labels} if tile in split.train else set()
            needed |= {protocol.test_labels} if tile in (*split.val, *split.test) else set()
        return needed

    def _splits(self) -> list[tuple]:
        """(protocol, split) of all protocols, clean splits included."""
        found = [find_protocol(name) for name in self.protocols]
        return [(protocol, protocol.split(self.dataset, clean)) for protocol in found for clean in (False, True)]


@dataclass(frozen=True)
class Tile:
    """A tile: its name, the start of its file names, its source files by kind, and what is made of it."""

    name: str
    stem: str
    files: Mapping[str, SourceFile]
    windows: bool
    whole: bool


def plan(request: Request, found: Mapping[Key, SourceFile]) -> list[Tile]:
    """Tiles to prepare.

    Raises:
        DataError: A tile lacks its image or needed labels, or there is no tile at all.
    """
    wanted, existing = request.wanted, {tile for tile, _ in found}
    chosen = [tile for tile in isprs.TILES[request.dataset] if any(request.products(tile))]
    if request.tiles is not None:
        chosen = [tile for tile in chosen if tile in request.tiles]
    elif not request.protocols:
        chosen = [tile for tile in chosen if tile in existing]
    tiles, missing = [], []
    for name in chosen:
        kinds = [kind for kind in wanted.labels if (name, kind) in found]
        needed = request.needed_labels(name)
        if not needed and not kinds:
            names = ' or '.join(wanted.file_name(name, kind) for kind in wanted.labels)
            missing.append(f'tile {name}: labels ({names})')
        missing += [
            f'tile {name}: {describe_kind(kind)} ({wanted.file_name(name, kind)})'
            for kind in (IMAGE, *needed)
            if (name, kind) not in found
        ]
        files = {kind: found[name, kind] for kind in (IMAGE, *kinds) if (name, kind) in found}
        tiles.append(Tile(name, isprs.tile_stem(request.dataset, name), files, *request.products(name)))
    if missing:
        counts = ', '.join(
            f'{sum(kind == other for _, other in found)} {kind if kind == IMAGE else f"{kind} label"} files'
            for kind in (IMAGE, *wanted.labels)
        )
        what = f' (protocol {" ".join(request.protocols)})' if request.protocols else ''
        raise DataError(
            f'{request.dataset}{what}: missing {some_of(missing, 5)}. Found {counts}; add the archive that has them, '
            'or choose with --tiles, --protocol and --labels'
        )
    if not tiles:
        example = wanted.file_name(isprs.TILES[request.dataset][0], IMAGE)
        raise DataError(f'no tile of {request.dataset} was found; looked for files such as {example}')
    return tiles
