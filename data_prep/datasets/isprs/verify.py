"""Checks prepared ISPRS data: every window and whole tile, each kind of labels."""

from __future__ import annotations

from pathlib import Path

from data_prep.core.checks import Expected, Fault, Item, Report, check_files, check_json
from data_prep.datasets.isprs.prepare import STATISTICS, TILES, WINDOWS, dataset_of, made_units, statistics
from data_prep.datasets.isprs.sources import IMAGE, LABEL_KINDS
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import isprs


def verify_isprs(root: Path, workers: int | None = None) -> Report:
    """Checks every file of a prepared folder.

    Args:
        root: The folder.
        workers: Number of processes; None for one per CPU.

    Returns:
        Class counts of windows and of whole tiles for each kind of labels, and all faults.

    Raises:
        DataError: `root` does not hold prepared ISPRS data.
    """
    markers = made_units(root)
    if not any(dataset_of(marker['kind']) for marker in markers.values()):
        raise DataError(f'{root}: holds no prepared ISPRS data; prepare them with data_prep/isprs.py')
    report = Report(isprs.CLASSES)
    splits = {name: f'{marker["product"]} {marker["content"]}' for name, marker in markers.items()}
    items: list[Item] = []
    contents: dict[tuple[str, str], set[str]] = {}
    counts: dict[Path, dict] = {}
    for name, marker in markers.items():
        kind, product, settings = marker['content'], marker['product'], marker['settings']
        contents.setdefault((marker['tile'], product), set()).add(kind)
        height, width = [settings['size']] * 2 if product == WINDOWS else marker['size']
        palette = isprs.palette_of(kind).of_form(single_band=settings.get('masks', 'index') == 'index')
        expected = Expected(palette, bands=marker.get('bands', 3))
        for folder, names in marker['files'].items():
            for path in (root / folder / file for file in names):
                if path.exists():
                    image, mask = (path, None) if kind == IMAGE else (None, path)
                    items.append(Item(splits[name], image, mask, expected, (height, width)))
                    if mask is not None and product == TILES:  # windows overlap, so their pixels were not counted
                        counts[mask] = marker
    for (tile, product), kinds in contents.items():
        if len(kinds) == 1 or IMAGE not in kinds:
            missing = 'labels' if kinds == {IMAGE} else 'image'
            message = f'tile {tile} is not finished, its {missing} are missing; run data_prep/isprs.py as before'
            report.faults.append(Fault('unfinished tile', product, str(root / product), message))
    report.faults += check_files(root, markers, splits)
    report.faults += check_json(root / STATISTICS, statistics(markers))
    shown = [f'{product} {kind}' for product in (WINDOWS, TILES) for kind in LABEL_KINDS]
    reports = report.check(items, [split for split in shown if split in splits.values()], workers)
    for found in reports:
        if found.item.mask in counts:
            report.compare_counts(found, counts[found.item.mask])
    return report
