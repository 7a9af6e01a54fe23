"""Pictures of what attention looks at in an image: `python tools/analysis/attention_map.py CHECKPOINT IMAGE`.

For each stage with meta tokens: what each token attends to, and which token each pixel attends to most. For each stage
with low-resolution attention: how much attention each pooled cell gets, from all queries and from that of one pixel.
With --pixel also the self-attention of that pixel. Figures are written to attention.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lale_mmseg.cli.common import add_predictor_options, load_predictor, run_command
from lale_mmseg.datasets.image_io import decode_image, read_bytes
from lale_mmseg.errors import InputError
from lale_mmseg.evaluation.attention_plots import Backdrop, plot_listening, plot_pixel, plot_pyramid, plot_tokens
from lale_mmseg.evaluation.overlay import to_display
from lale_mmseg.files import write_atomic
from lale_mmseg.inference.attention_maps import (
    AttentionMap,
    Place,
    attention_places,
    choose_places,
    pooled_row,
    pyramid_levels,
    record_attention,
    summary_of,
)
from lale_mmseg.models.attention.base import GATHER, GIVE, POOLED, SELF, Size


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description='Draws what the attention of a network looks at.')
    parser.add_argument('checkpoint', help='checkpoint written by tools/train.py')
    parser.add_argument('image', help='image file')
    parser.add_argument('--out-dir', help='output folder (default: work_dirs/attention/RUN/CHECKPOINT_IMAGE)')
    parser.add_argument('--stage', nargs='+', default=[], help='stages, such as 3 4 or decode_head (default: all)')
    parser.add_argument('--block', type=int, help='block of each stage, starting from 1 (default: the last)')
    parser.add_argument(
        '--pixel', type=int, nargs=2, metavar=('Y', 'X'), help='row and column of a pixel (default: the centre)'
    )
    parser.add_argument('--alpha', type=float, default=0.7, help='opacity of attention over the image, 0 to 1')
    parser.add_argument(
        '--max-size', type=int, default=1024, help='side length in pixels of the window shown of a larger image'
    )
    add_predictor_options(parser)
    return parser.parse_args()


def places_to_show(model: torch.nn.Module, args: argparse.Namespace) -> list[Place]:
    """Places of the options; self-attention over all pixels is quadratic and shown for `--pixel` alone."""
    places = [place for place in attention_places(model) if not args.stage or place.stage in args.stage]
    hidden = [] if args.pixel else [place for place in places if place.role == SELF]
    if not places and not args.stage:
        raise InputError(f'{args.checkpoint}: the network has no attention')
    if places and len(hidden) == len(places):
        raise InputError(f'{args.checkpoint}: self-attention over all pixels is too large to show; pass --pixel Y X')
    for stage in dict.fromkeys(place.stage for place in hidden):
        print(f'not shown: self-attention of stage {stage}; pass --pixel Y X to see it for one pixel')
    shown = [place for place in attention_places(model) if args.pixel or place.role != SELF]
    return choose_places(shown, args.stage, args.block)


def window_around(image: np.ndarray, args: argparse.Namespace) -> tuple[np.ndarray, Size]:
    """The part of the image to show, and the position of the marked pixel in it."""
    height, width = image.shape[:2]
    row, column = args.pixel or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(f'--pixel {row} {column}: outside of {args.image}, which has {height} rows, {width} columns')
    side = args.max_size
    top, left = max(0, min(row - side // 2, height - side)), max(0, min(column - side // 2, width - side))
    part = image[top : top + side, left : left + side]
    if part.shape != image.shape:
        ends = f'rows {top} to {top + part.shape[0] - 1} and columns {left} to {left + part.shape[1] - 1}'
        print(f'note: {args.image} is {height}x{width}; showing {ends} (--pixel, --max-size)', file=sys.stderr)
    return part, (row - top, column - left)


def draw(found: AttentionMap, figures: dict[str, Any], backdrop: Backdrop, pixel: Size, path: Path) -> str:
    """Draws one map; returns a line about it."""
    place, weights, hw = found.place, found.weights, found.hw
    spread = f'spread {np.mean(figures["spread"]):.1%}'
    where = f'{place.kind} of stage {place.stage}, block {place.block}'
    title = (
        f'{where}: {place.role}\nstride {found.stride}, feature map {hw[0]}x{hw[1]}, {found.num_heads} heads averaged'
    )
    if place.role == GATHER:
        pairs = zip(figures['peak'], figures['spread'], strict=True)
        notes = [f'peak {peak:.1f}x, spread {share:.0%}' for peak, share in pairs]
        plot_tokens(backdrop, weights.unflatten(1, hw).numpy(), notes, title, path)
    elif place.role == GIVE:
        winners = weights.argmax(dim=1).unflatten(0, hw).numpy()
        plot_listening(backdrop, winners, figures['listening'], f'{title}, {spread} over tokens', path)
        return f'{path.name}: {where}, {spread}'
    elif place.role == POOLED:
        keys = weights.shape[1]
        row = pooled_row(found, backdrop.input_hw, pixel)
        rows: list[tuple[str, list[np.ndarray], Size | None]] = [
            (f'mean of {len(weights)} queries', pyramid_levels(weights.mean(dim=0) * keys, found.key_grids), None),
            ('query of the marked pixel', pyramid_levels(row * keys, found.key_grids), pixel),
        ]
        plot_pyramid(backdrop, rows, title, path)
    else:
        plot_pixel(backdrop, (weights[0] * weights.shape[1]).unflatten(0, hw).numpy(), pixel, title, path)
    return f'{path.name}: {where}, highest weight {max(figures["peak"]):.1f}x the mean, {spread}'


def main() -> None:
    """Draws the pictures of one image."""
    args = parse_args()
    if not 0 <= args.alpha <= 1:
        raise InputError(f'--alpha {args.alpha}: expected a number from 0 to 1')
    content = read_bytes(args.image)
    predictor = load_predictor(args)
    places = places_to_show(predictor.model, args)
    image, pixel = window_around(decode_image(content, args.image, predictor.bands), args)

    input_hw = predictor.input_size((image.shape[0], image.shape[1]))
    maps = record_attention(predictor.model, lambda: predictor.logits(image), places, input_hw, pixel)
    backdrop = Backdrop(to_display(image, bgr=predictor.bands is None), input_hw, args.alpha)
    checkpoint = Path(args.checkpoint)
    run = checkpoint.resolve().parent.name
    out_dir = Path(args.out_dir or Path('work_dirs/attention', run, f'{checkpoint.stem}_{Path(args.image).stem}'))
    print(f'writing to {out_dir}: attention.json and')
    summaries = []
    for found in maps:
        figures = summary_of(found)
        stage = f'stage{found.place.stage}' if found.place.stage.isdigit() else found.place.stage
        path = out_dir / f'{stage}_block{found.place.block}_{found.place.role}.png'
        print(draw(found, figures, backdrop, pixel, path))
        summaries.append(dict(file=path.name, **figures))
    report = dict(checkpoint=args.checkpoint, image=args.image, input=list(input_hw), pixel=list(pixel), maps=summaries)
    write_atomic(out_dir / 'attention.json', json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    run_command(main)
