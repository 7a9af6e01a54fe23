"""What attention looks at in an image: `python tools/analysis/attention_map.py CHECKPOINT IMAGE`.

For each stage with meta tokens: what each token looks at, and the token that each pixel looks at most. For each stage
with low-resolution attention: how much each pooled cell is looked at, by all queries and by that of one pixel. With
--pixel also what that pixel looks at in self-attention. Figures go to attention.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _cli

import lale_mmseg.register  # noqa: F401
from lale_mmseg.datasets.image_io import decode_image, read_bytes
from lale_mmseg.errors import InputError
from lale_mmseg.evaluation.attention_plots import Backdrop, plot_listening, plot_pixel, plot_pyramid, plot_tokens
from lale_mmseg.evaluation.overlay import to_display
from lale_mmseg.files import write_atomic
from lale_mmseg.inference import Predictor
from lale_mmseg.inference.attention_maps import (
    CALLS,
    GATHER,
    GIVE,
    POOLED,
    SELF,
    AttentionMap,
    Place,
    attention_places,
    choose_places,
    pooled_row,
    pyramid_grids,
    record_attention,
    summary_of,
)

Size = tuple[int, int]


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Pictures of what the attention of a network looks at.')
    parser.add_argument('checkpoint', help='checkpoint written by tools/train.py')
    parser.add_argument('image', help='image file')
    parser.add_argument(
        '--out-dir', help='folder for the pictures (default: work_dirs/attention/RUN/CHECKPOINT_IMAGE, by their names)'
    )
    parser.add_argument(
        '--stage', nargs='+', default=[], help='stages to show, such as 3 4 or decode_head (default: all that can be)'
    )
    parser.add_argument('--block', type=int, help='block of each stage, counting from 1 (default: the last)')
    parser.add_argument(
        '--pixel', type=int, nargs=2, metavar=('Y', 'X'), help='row and column of a pixel (default: the centre)'
    )
    parser.add_argument('--alpha', type=float, default=0.7, help='opacity of attention over the image, 0 to 1')
    parser.add_argument(
        '--max-size', type=int, default=1024, help='of larger images only a window of this side, in pixels, is shown'
    )
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--trust-checkpoint', action='store_true', help='as of tools/test.py')
    return parser.parse_args()


def window_around(hw: Size, pixel: Size, side: int) -> Size:
    """Top row and left column of a window of `side` around a pixel, inside the image."""
    top, left = (max(0, min(at - side // 2, length - side)) for at, length in zip(pixel, hw, strict=True))
    return top, left


def places_to_show(predictor: Predictor, args: argparse.Namespace) -> tuple[list[Place], list[Place]]:
    """Places to show, and places of self-attention in the stages asked for, which would need a pixel.

    Raises:
        InputError: There is nothing to show, or not in the stage or block asked for.
    """
    places = attention_places(predictor.model)
    if not places:
        kinds = ', '.join(kind.__name__ for kind in CALLS)
        raise InputError(f'{args.checkpoint}: its network has no attention that can be shown; that is {kinds}')
    needs_pixel = [] if args.pixel else [place for place in places if place.role == SELF]
    shown = [place for place in places if place not in needs_pixel]
    for stage in args.stage or ['']:
        there = [place for place in places if stage in ('', place.stage)]
        if there and all(place in needs_pixel for place in there):
            where = f'stage {stage} of its network' if stage else 'its network'
            raise InputError(
                f'{args.checkpoint}: {where} has self-attention over all pixels only, which is too large to show; '
                '--pixel Y X shows what one pixel looks at'
            )
    left_out = [place for place in needs_pixel if not args.stage or place.stage in args.stage]
    return choose_places(shown, args.stage, args.block), left_out


def title_of(found: AttentionMap, what: str) -> str:
    """Heading of a picture."""
    place = found.place
    where = f'stage {place.stage}' if place.stage.isdigit() else place.stage
    height, width = found.hw
    heads = f'{found.num_heads} heads averaged' if found.num_heads > 1 else '1 head'
    return f'{where}, block {place.block}: {what}\n{place.kind}, stride {found.stride}, map {height}x{width}, {heads}'


def draw(found: AttentionMap, figures: dict[str, Any], backdrop: Backdrop, pixel: Size, path: Path) -> None:
    """Draws the picture of one map."""
    weights, hw = found.weights, found.hw
    if found.place.role == GATHER:
        notes = [f'peak {_times(p)}, spread {_share(s)}' for p, s in _pairs(figures)]
        title = title_of(found, f'what each of {len(weights)} meta tokens looks at')
        plot_tokens(backdrop, weights.unflatten(1, hw).numpy(), notes, title, path)
    elif found.place.role == GIVE:
        winners = weights.argmax(dim=1).unflatten(0, hw).numpy()
        title = title_of(found, f'which of {weights.shape[1]} meta tokens each pixel looks at')
        title += f', mean spread over tokens {_share(figures["spread"])}'
        plot_listening(backdrop, winners, figures['listening'], title, path)
    elif found.place.role == POOLED:
        equal = weights.shape[1]
        row = pooled_row(found, backdrop.input_hw, pixel)
        rows: list[tuple[str, list[np.ndarray], Size | None]] = [
            (f'mean of {len(weights)} queries', pyramid_grids(weights.mean(dim=0) * equal, found.key_grids), None),
            ('query of the marked pixel', pyramid_grids(row * equal, found.key_grids), pixel),
        ]
        height, width = found.query_hw
        plot_pyramid(backdrop, rows, title_of(found, f'what {height}x{width} pooled queries look at'), path)
    else:
        cells = (weights[0] * weights.shape[1]).unflatten(0, hw).numpy()
        plot_pixel(backdrop, cells, pixel, title_of(found, 'self-attention of one pixel'), path)


def most_of(figures: dict[str, Any]) -> str:
    """What is looked at most, in words."""
    if figures['role'] == GIVE:
        listening = figures['listening']
        most = int(np.argmax(listening))
        heard = sum(share > 0 for share in listening)
        return (
            f'token {most} is first for {100 * listening[most]:.0f} % of pixels; {heard} of {len(listening)} for any; '
            f'spread {_share(figures["spread"])}'
        )
    most = int(np.argmax(figures['peak']))
    peak, spread, cell = figures['peak'][most], figures['spread'][most], figures['peak_cell'][most]
    if figures['role'] == POOLED:
        height, width = figures['pyramid'][cell[0]]
        return f'cell {cell[1]},{cell[2]} of {height}x{width}: {_times(peak)} the equal share; spread {_share(spread)}'
    who = f'token {most}' if figures['role'] == GATHER else 'the pixel'
    return f'{who} at cell {cell[0]},{cell[1]}: {_times(peak)} the equal share; spread {_share(spread)}'


def report(files: list[tuple[Path, dict[str, Any]]], left_out: list[Place], out_dir: Path) -> None:
    """Prints the table of written files and what is not among them."""
    table = Table(title=f'written to {out_dir}', title_justify='left', box=None, pad_edge=False)
    for column in ('file', 'attention', 'map', 'looked at most'):
        table.add_column(column, overflow='fold')
    for path, figures in files:
        height, width = figures['map']
        table.add_row(path.name, figures['attention'], f'{height}x{width}', most_of(figures))
    table.add_row('attention.json', '', '', 'all figures')
    # A pipe has no width: nothing is to be broken there.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for stage in dict.fromkeys(place.stage for place in left_out):
        blocks = sum(place.stage == stage for place in left_out)
        print(
            f'not shown: self-attention of stage {stage} ({blocks} block(s)), every pixel at every pixel; --pixel Y X'
        )


def main() -> None:
    """Draws the pictures of one image."""
    args = parse_args()
    if not 0 <= args.alpha <= 1:
        raise InputError(f'--alpha {args.alpha}: 0 to 1 is due')
    if args.max_size < 32:
        raise InputError(f'--max-size {args.max_size}: 32 or more is due')
    device = args.device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    content = read_bytes(args.image)
    predictor = Predictor.from_checkpoint(args.checkpoint, device, args.trust_checkpoint)
    places, left_out = places_to_show(predictor, args)
    image = decode_image(content, args.image, predictor.bands)
    image, pixel = _window(image, args)

    inputs, meta = predictor.prepare(image)
    input_hw = (inputs.shape[2], inputs.shape[3])
    maps = record_attention(
        predictor.model, lambda: predictor.model.encode_decode(inputs, [meta]), places, input_hw, pixel
    )
    is_bgr = predictor.bands is None and image.shape[2] == 3 and image.dtype == np.uint8
    backdrop = Backdrop(to_display(image[..., ::-1] if is_bgr else image), input_hw, args.alpha)
    checkpoint = Path(args.checkpoint)
    default = (
        Path('work_dirs/attention') / checkpoint.resolve().parent.name / f'{checkpoint.stem}_{Path(args.image).stem}'
    )
    out_dir = Path(args.out_dir or default)
    files = []
    for found in maps:
        figures = summary_of(found)
        stage = f'stage{found.place.stage}' if found.place.stage.isdigit() else found.place.stage
        path = out_dir / f'{stage}_block{found.place.block}_{found.place.role}.png'
        draw(found, figures, backdrop, pixel, path)
        files.append((path, figures))
    content_out = dict(
        checkpoint=args.checkpoint,
        image=args.image,
        input=list(input_hw),
        pixel=list(pixel),
        maps=[dict(file=path.name, **figures) for path, figures in files],
    )
    write_atomic(out_dir / 'attention.json', json.dumps(content_out, indent=1) + '\n')
    report(files, left_out, out_dir)


def _window(image: np.ndarray, args: argparse.Namespace) -> tuple[np.ndarray, Size]:
    """The part of the image to show, and the pixel to mark in it."""
    height, width = image.shape[:2]
    row, column = args.pixel or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(f'--pixel {row} {column}: {args.image} has rows 0 to {height - 1}, columns 0 to {width - 1}')
    if max(height, width) <= args.max_size:
        return image, (row, column)
    top, left = window_around((height, width), (row, column), args.max_size)
    part = image[top : top + args.max_size, left : left + args.max_size]
    print(
        f'note: {args.image} is {height}x{width}; shown are rows {top} to {top + part.shape[0] - 1} and columns {left} '
        f'to {left + part.shape[1] - 1} around the pixel (--pixel, --max-size)',
        file=sys.stderr,
    )
    return part, (row - top, column - left)


def _pairs(figures: dict[str, Any]) -> list[tuple[float, float]]:
    return list(zip(figures['peak'], figures['spread'], strict=True))


def _times(value: float) -> str:
    return f'{value:.1f}x' if value < 99.95 else f'{value:.0f}x'


def _share(value: float) -> str:
    return f'{100 * value:.0f} %' if value >= 0.0095 else f'{100 * value:.1f} %'


if __name__ == '__main__':
    _cli.run(main)
