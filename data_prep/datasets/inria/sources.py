"""Finds the tiles in AerialImageDataset as Inria distributes it, unpacked or in a zip archive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.core.report import some_of
from data_prep.core.sources import SourceFile, walk_files, walk_rasters
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import inria

IMAGE, MASK = 'image', 'mask'
#: Folders of the archive below train/.
FOLDERS = {'images': IMAGE, 'gt': MASK}
_NAME = re.compile(rf'({"|".join(inria.CITIES)})(\d+)')
#: Archives, and parts of archives, that must be unpacked first.
_PACKED = re.compile(r'\.(7z|rar|tar|gz|tgz)(\.\d+)?$|\.zip\.\d+$|\.z\d+$', re.IGNORECASE)


@dataclass(frozen=True)
class TileFiles:
    """A tile and its two files."""

    tile: str
    image: SourceFile
    mask: SourceFile


def find_tiles(source: Path, wanted: Sequence[str], skip_missing: bool, scratch: Path) -> dict[str, TileFiles]:
    """Finds image and labels of each wanted tile.

    Args:
        source: Folder that holds AerialImageDataset/train/{images,gt} at any depth, unpacked or in zip archives; or a
            part of it; or one zip archive.
        wanted: Names of tiles, such as 'austin1'.
        skip_missing: Leave out tiles without image or labels.
        scratch: Folder for copies of inner archives.

    Raises:
        DataError: `source` is still packed; a tile lacks a file, has two of a kind, or does not
            belong to the dataset.
    """
    found: dict[tuple[str, str], SourceFile] = {}
    for file in walk_rasters(source, scratch, _skips):
        path = PurePosixPath(file.name)
        kind, name = FOLDERS.get(path.parent.name.lower()), _NAME.fullmatch(path.stem)
        above = PurePosixPath((file.member or file.name).replace('\\', '/')).parts[:-2]
        # `images` at the top of the source or of an archive need not lie in train/; deeper ones must: test/ has some.
        if kind is None or name is None or (above and above[-1].lower() != 'train'):
            continue
        if path.stem not in inria.TILES:
            raise DataError(f'{file.name}: {name[1]} has tiles 1 to {inria.TILES_PER_CITY}; no such tile')
        other = found.setdefault((path.stem, kind), file)
        # A link may lead to the same file.
        if (other.path.resolve(), other.member) != (file.path.resolve(), file.member):
            raise DataError(f'{source}: {other.name} and {file.name} are both the {kind} of {path.stem}; keep one')
    complete = [tile for tile in wanted if {(tile, IMAGE), (tile, MASK)} <= found.keys()]
    if not complete:
        raise DataError(_nothing_found(source, wanted))
    if len(complete) < len(wanted) and not skip_missing:
        missing = [_describe_missing(tile, found) for tile in wanted if tile not in complete]
        raise DataError(
            f'{source}: files of {len(missing)} of {len(wanted)} tiles are missing: {some_of(missing)}; unpack all '
            'parts of the archive, or continue without these tiles with --missing skip'
        )
    return {tile: TileFiles(tile, found[tile, IMAGE], found[tile, MASK]) for tile in complete}


def shipped_archive(root: Path) -> Path | None:
    """The unpacked folder AerialImageDataset, if `root` is it or holds it; else None."""
    folders = (root, root / 'AerialImageDataset')
    return next((folder for folder in folders if (folder / 'train' / 'gt').is_dir()), None)


def _skips(name: str) -> bool:
    return name == '__MACOSX'


def _describe_missing(tile: str, found: dict[tuple[str, str], SourceFile]) -> str:
    missing = [folder for folder, kind in FOLDERS.items() if (tile, kind) not in found]
    return tile if len(missing) == len(FOLDERS) else f'{tile} (no {missing[0]}/{tile}.tif)'


def _nothing_found(source: Path, wanted: Sequence[str]) -> str:
    packed = [
        path for path in ([source] if source.is_file() else walk_files(source, _skips)) if _PACKED.search(path.name)
    ]
    if packed:
        first = next((path for path in packed if path.name.endswith('.001')), packed[0])
        return (
            f'{first}: is a packed archive, or a part of one; unpack it first, for example with "7z x {first.name}" '
            '(all parts in one folder), and pass the folder or zip archive that comes out of it'
        )
    return (
        f'{source}: no tile was found; expected, for example, AerialImageDataset/train/images/{wanted[0]}.tif and '
        f'train/gt/{wanted[0]}.tif, at any depth'
    )
