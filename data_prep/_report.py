"""What a check of a data set found, and how it is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from data_prep._pair_checks import Fault
from data_prep._shares import print_table, table_console

_SHOWN = 40


@dataclass
class Report:
    """Outcome of a check: class counts of each split, all faults, and what is worth knowing without being one."""

    classes: tuple[str, ...]
    splits: dict[str, dict] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kinds = Counter(fault.kind for fault in self.faults)
        return dict(
            classes=list(self.classes),
            splits=self.splits,
            fault_counts=dict(kinds.most_common()),
            faults=[asdict(fault) for fault in self.faults],
            notes=self.notes,
        )


def print_report(root: Path, report: Report, limit: int = _SHOWN) -> None:
    """Prints class shares of each split, and the first faults of each kind."""
    console = table_console(len(report.classes))
    print_table(f'{root}: class shares', report.classes, report.splits)
    ignored = {split: entry['ignored_pixels'] for split, entry in report.splits.items() if entry['ignored_pixels']}
    for split, count in ignored.items():
        print(f'{split}: {count:,} pixels are ignored (no class)')
    for note in report.notes:
        print(f'note: {note}')
    if not report.faults:
        print(f'no fault in {sum(entry["pairs"] for entry in report.splits.values()):,} pairs')
        return
    kinds = Counter(fault.kind for fault in report.faults)
    # A kind with thousands of faults must not hide one that occurs once.
    share = max(limit // len(kinds), 1)
    table = Table(title=f'{len(report.faults):,} fault{"s" * (len(report.faults) != 1)}', show_lines=False)
    for column in ('kind', 'split', 'file', 'what'):
        table.add_column(column, overflow='fold')
    for kind, count in kinds.most_common():
        shown = [fault for fault in report.faults if fault.kind == kind][:share]
        for fault in shown:
            table.add_row(fault.kind, fault.split, fault.file, fault.message)
        if count > len(shown):
            table.add_row(kind, '', '', f'... and {count - len(shown):,} more')
    console.print(table)
    print('faults: ' + ', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common()))
