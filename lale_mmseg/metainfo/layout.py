"""Where the images and masks of a split lie: text files or folders, found from the files themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

#: Suffixes of files that count as images or masks, lower case.
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp')


@dataclass(frozen=True)
class Pair:
    """One image and its mask; `mask` is None where the split has no masks."""

    stem: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class SplitLayout:
    """Folders of a split, and the text file that lists its stems (None: all files of the folder)."""

    images: Path
    masks: Path
    stems_file: Path | None


def find_layout(root: Path, split: str, image_dir: str = 'images', mask_dir: str = 'masks') -> SplitLayout:
    """Finds how a split is stored.

    Three layouts are known: ROOT/{split}.txt with ROOT/images and ROOT/masks; ROOT/{split}/images and .../masks;
    ROOT/images/{split} and ROOT/masks/{split}.

    Raises:
        DataError: None of them is there; names what was looked for.
    """
    candidates = (
        SplitLayout(root / image_dir, root / mask_dir, root / f'{split}.txt'),
        SplitLayout(root / split / image_dir, root / split / mask_dir, None),
        SplitLayout(root / image_dir / split, root / mask_dir / split, None),
    )
    for layout in candidates:
        if layout.images.is_dir() and (layout.stems_file is None or layout.stems_file.is_file()):
            return layout
    raise DataError(
        f'{root}: no split {split!r}; looked for {split}.txt beside {image_dir}/, for {split}/{image_dir}/ and for '
        f'{image_dir}/{split}/'
    )


def list_pairs(layout: SplitLayout, require_masks: bool = True) -> list[Pair]:
    """The images of a split with their masks, in the order of the text file or by name.

    Args:
        layout: From `find_layout`.
        require_masks: Whether an image without mask is an error.

    Raises:
        DataError: The split is empty, names a stem twice, or lacks an image or a mask.
    """
    images = index_by_stem(layout.images)
    masks = index_by_stem(layout.masks) if layout.masks.is_dir() else {}
    if layout.stems_file is None:
        stems = sorted(images)
        where = str(layout.images)
    else:
        stems = read_stems(layout.stems_file)
        where = str(layout.stems_file)
        _require_all(stems, images, f'{where}: no image in {layout.images} for')
    if not stems:
        raise DataError(f'{where}: the split is empty; images end in {", ".join(IMAGE_SUFFIXES)}')
    if require_masks:
        _require_all(stems, masks, f'{where}: no mask in {layout.masks} for')
    return [Pair(stem, images[stem], masks.get(stem)) for stem in stems]


def index_by_stem(folder: Path) -> dict[str, Path]:
    """Image files below a folder by their path without suffix, such as `area1/tile_03`.

    Raises:
        DataError: Two files differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith('.'):
            continue
        stem = path.relative_to(folder).with_suffix('').as_posix()
        if stem in found:
            raise DataError(f'{folder}: {found[stem].name} and {path.name} have the same stem; keep one of them')
        found[stem] = path
    return found


def read_stems(path: Path) -> list[str]:
    """Stems listed in a text file, one a line; empty lines and lines that begin with # are left out.

    Raises:
        DataError: A stem stands twice.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), start=1):
        name = line.strip()
        if not name or name.startswith('#'):
            continue
        entry = Path(name)
        stem = (entry.with_suffix('') if entry.suffix.lower() in IMAGE_SUFFIXES else entry).as_posix()
        if stem in seen:
            raise DataError(f'{path}, line {number}: {stem!r} stands in line {seen[stem]} already')
        seen[stem] = number
    return list(seen)


def _require_all(stems: Iterable[str], files: dict[str, Path], message: str) -> None:
    missing = [stem for stem in stems if stem not in files]
    if missing:
        more = f' and {len(missing) - 5} more' if len(missing) > 5 else ''
        raise DataError(f'{message} {", ".join(missing[:5])}{more}')
