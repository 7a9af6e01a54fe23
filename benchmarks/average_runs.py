"""Mean and standard deviation of test scores over runs that differ in their seed.

    python benchmarks/average_runs.py work_dirs/seed0 work_dirs/seed1 work_dirs/seed2 [--save NAME]

reads test/metrics.json of each work dir, as tools/test.py writes it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import table_text, write_result

SUMMARY = ('OA', 'mIoU', 'mF1')


def read_scores(work_dir: Path) -> dict[str, float]:
    """Summary scores and IoU of each class that has one (not absent, not left out) of a tested run, in percent."""
    metrics = json.loads((work_dir / 'test' / 'metrics.json').read_text(encoding='utf-8'))
    scores = {name: metrics['summary'][name] for name in SUMMARY}
    return {
        **scores,
        **{f'IoU {name}': entry['IoU'] for name, entry in metrics['per_class'].items() if entry['IoU'] is not None},
    }


def main() -> None:
    """Prints the table and, if asked to, writes benchmarks/results/NAME.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='+', type=Path)
    parser.add_argument('--save', metavar='NAME', help='write benchmarks/results/NAME.json and NAME.md')
    args = parser.parse_args()
    runs = {work_dir.name: read_scores(work_dir) for work_dir in args.work_dirs}
    names = [name for name in next(iter(runs.values())) if all(name in run for run in runs.values())]
    columns = {name: [run[name] for run in runs.values()] for name in names}
    rows = [(work_dir, *(f'{run[name]:.2f}' for name in names)) for work_dir, run in runs.items()]
    rows.append(('mean', *(f'{statistics.mean(columns[name]):.2f}' for name in names)))
    if len(runs) > 1:
        rows.append(('std', *(f'{statistics.stdev(columns[name]):.2f}' for name in names)))
    text = table_text(('run', *names), rows)
    print(text)
    if args.save:
        means = {name: statistics.mean(values) for name, values in columns.items()}
        for path in write_result(args.save, dict(runs=runs, mean=means), text):
            print(f'written: {path}')


if __name__ == '__main__':
    main()
