"""Time to convert an RGB mask to class indexes: one 24-bit look-up table against one comparison per colour.

    python benchmarks/mask_decode.py [--save]

The mask has blobs in the 7 colours of ARAS400k. Both methods must give the same indexes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import interleaved_medians, table_text, write_result
from lale_mmseg.metainfo import IGNORE_INDEX, Palette, aras400k

SIZES = (256, 512, 1024)


def make_mask(size: int, palette: Palette, seed: int = 0) -> np.ndarray:
    """(size, size, 3) uint8 RGB mask with blobs of 16 pixels and ragged edges."""
    generator = np.random.default_rng(seed)
    blobs = generator.integers(0, palette.num_classes, (size // 16, size // 16))
    labels = blobs.repeat(16, 0).repeat(16, 1)
    ragged = generator.random(labels.shape) < 0.05
    labels[ragged] = generator.integers(0, palette.num_classes, int(ragged.sum()))
    return palette.encode(labels)


def decode_by_color(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """The usual method: one comparison of the whole mask for each class."""
    labels = np.full(mask.shape[:2], IGNORE_INDEX, np.uint8)
    for index, color in enumerate(palette.colors):
        labels[np.all(mask == color, axis=-1)] = index
    return labels


def measure(size: int, repeats: int, palette: Palette) -> dict[str, float]:
    """Median seconds per mask of both methods."""
    mask = make_mask(size, palette)
    if not np.array_equal(palette.decode(mask), decode_by_color(mask, palette)):
        raise AssertionError('the two ways give different indexes')
    return interleaved_medians(
        {'table': lambda: palette.decode(mask), 'colour by colour': lambda: decode_by_color(mask, palette)},
        repeats,
    )


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/mask_decode.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--save', action='store_true', help='write benchmarks/results/mask_decode.json and .md')
    parser.add_argument('--repeats', type=int, default=50, help='timed runs per method and size')
    args = parser.parse_args()

    palette = Palette(aras400k.CLASSES, aras400k.COLORS, [aras400k.NO_DATA_COLOR])
    rows, values = [], {}
    for size in SIZES:
        seconds = measure(size, args.repeats, palette)
        table, compared = seconds['table'], seconds['colour by colour']
        values[str(size)] = {**seconds, 'ratio': compared / table}
        rows.append((f'{size} x {size}', f'{1e3 * table:.3f}', f'{1e3 * compared:.3f}', f'{compared / table:.1f}'))
    text = table_text(('mask', 'table ms', 'colour by colour ms', 'times faster'), rows)
    print(text)
    if args.save:
        for path in write_result('mask_decode', {'seconds_per_mask': values, 'repeats': args.repeats}, text):
            print(f'written: {path}')


if __name__ == '__main__':
    main()
