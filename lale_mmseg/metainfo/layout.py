"""Finds the images and masks of a split: in lists of names or in folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

#: Suffixes of image and mask files, lower case.
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp')
_SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """One image and its mask; `mask` is None if there is none."""

    stem: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class SplitLayout:
    """Folders of a split, and the text file that lists its stems (None: all files of the folder)."""

    images: Path
    masks: Path
    stems_file: Path | None

    @property
    def origin(self) -> Path:
        """What determines the members of the split: the text file or the image folder."""
        return self.stems_file or self.images


@dataclass(frozen=True)
class Problem:
    """Something wrong with the files of a split: a short kind, the stem, the file, and a message."""

    kind: str
    stem: str
    file: Path
    message: str


def find_layout(root: Path, split: str, image_dir: str = 'images', mask_dir: str = 'masks') -> SplitLayout:
    """Finds how a split is stored.

    There are three layouts: ROOT/{split}.txt with ROOT/images and ROOT/masks; ROOT/{split}/images and .../masks;
    ROOT/images/{split} and ROOT/masks/{split}.

    Raises:
        DataError: None of them exists.
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


def list_pairs(layout: SplitLayout) -> list[Pair]:
    """Lists the images of a split with their masks, in the order of the text file or by name.

    Raises:
        DataError: The split is empty, lists a stem twice, or lacks an image or a mask.
    """
    pairs, problems = inspect_split(layout)
    # Masks without an image in a folder are harmless.
    problems = [problem for problem in problems if problem.kind != 'mask without image']
    if problems:
        others = [problem.stem for problem in problems[1:] if problem.kind == problems[0].kind]
        message = ', '.join([f'{layout.origin}: {problems[0].message}', *others[: _SHOWN - 1]])
        raise DataError(message + (f' and {len(others) - _SHOWN + 1} more' if len(others) >= _SHOWN else ''))
    return pairs


def inspect_split(layout: SplitLayout) -> tuple[list[Pair], list[Problem]]:
    """Lists the images of a split with their masks, and everything wrong with the names of the files.

    Kinds of problems: 'empty split', 'duplicate stem', 'missing image', 'missing mask', and, in layouts without a text
    file, 'mask without image'.
    """
    images, problems = _index(layout.images)
    masks, mask_problems = _index(layout.masks) if layout.masks.is_dir() else ({}, [])
    problems += mask_problems
    stems = sorted(images)
    if layout.stems_file is not None:
        stems, stem_problems = _read_stems(layout.stems_file)
        problems += stem_problems
        unpaired = []
    else:
        unpaired = sorted(set(masks) - set(images))
    if not stems and not unpaired:
        message = f'the split is empty; images end in {", ".join(IMAGE_SUFFIXES)}'
        problems.append(Problem('empty split', '', layout.origin, message))
    problems += _missing('image', stems, images, layout.images) + _missing('mask', stems, masks, layout.masks)
    for stem in unpaired:
        message = f'no image in {layout.images} for {stem}'
        problems.append(Problem('mask without image', stem, masks[stem], message))
    return [Pair(stem, images[stem], masks.get(stem)) for stem in stems if stem in images], problems


def index_by_stem(folder: Path) -> dict[str, Path]:
    """Image files below a folder by their path without suffix, such as `area1/tile_03`.

    Raises:
        DataError: Two files differ only in their suffix.
    """
    found, problems = _index(folder)
    if problems:
        raise DataError(f'{problems[0].file}: {problems[0].message}')
    return found


def _index(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    found: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith('.'):
            continue
        stem = path.relative_to(folder).with_suffix('').as_posix()
        if stem in found:
            message = f'{found[stem].name} and {path.name} have the same stem; keep one of them'
            problems.append(Problem('duplicate stem', stem, path, message))
        else:
            found[stem] = path
    return found, problems


def _read_stems(path: Path) -> tuple[list[str], list[Problem]]:
    """Stems in a text file, one per line; empty lines and lines that start with # are skipped."""
    seen: dict[str, int] = {}
    problems = []
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not a UTF-8 text file ({error})') from None
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith('#'):
            continue
        entry = Path(name)
        stem = (entry.with_suffix('') if entry.suffix.lower() in IMAGE_SUFFIXES else entry).as_posix()
        if stem in seen:
            message = f'line {number}: {stem!r} is already in line {seen[stem]}'
            problems.append(Problem('duplicate stem', stem, path, message))
        else:
            seen[stem] = number
    return list(seen), problems


def _missing(kind: str, stems: Sequence[str], files: dict[str, Path], folder: Path) -> list[Problem]:
    return [
        Problem(f'missing {kind}', stem, folder / f'{stem}.*', f'no {kind} in {folder} for {stem}')
        for stem in stems
        if stem not in files
    ]
