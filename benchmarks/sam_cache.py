"""Time saved by the feature cache: two epochs of a decoder on SAM's frozen encoder, with and without the cache.

    python benchmarks/sam_cache.py [--size 256] [--images 2] [--network sam_conv] [--device cuda] [--save]

Uses random weights and random images, each in its eight views (flips and 90-degree rotations), as in the light
augmentation. With the cache, the first epoch fills it and the second one reads it. The feature maps of both epochs must
be bit-identical, and the losses are compared with those of the run without a cache. Whole training steps are timed:
encoder or cache, decoder, losses and optimizer. The cache folder is removed at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.filterwarnings('ignore')

from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

import lale_mmseg.register  # noqa: E402, F401
from benchmarks._timing import REPOSITORY, table_text, write_result  # noqa: E402
from lale_mmseg.inference.views import VIEWS  # noqa: E402

NETWORKS = ('sam_conv', 'sam_unet')
EPOCHS = 2
#: Target: the second epoch is at least this many times as fast as the first.
SPEEDUP = 5.0


def build(args: argparse.Namespace, folder: str | None) -> Any:
    """A network of the configs with random weights, which are the same in every call."""
    cfg = Config.fromfile(REPOSITORY / 'configs' / '_base_' / 'models' / f'{args.network}.py').model
    cfg.backbone.weights = None
    cfg.backbone.cache_cfg = None if folder is None else dict(dir=folder)
    cfg.decode_head.num_classes = 2
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg)).to(args.device, memory_format=torch.channels_last).train()
    model.backbone.open_cache()
    return model


def batches(args: argparse.Namespace) -> list[Tensor]:
    """Normalized images of shape (1, 3, size, size), in all their views."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(args.images, 3, args.size, args.size, generator=generator)
    views = [view.apply(image[None]) for image in images for view in VIEWS['d4']]
    return [x.to(args.device).contiguous(memory_format=torch.channels_last) for x in views]


def train(args: argparse.Namespace, folder: str | None) -> dict[str, Any]:
    """Seconds, losses and feature maps of each epoch."""
    model = build(args, folder)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    found: dict[str, Any] = dict(seconds=[], losses=[], maps=[])
    for _ in range(EPOCHS):
        seconds, losses, kept = 0.0, [], []
        torch.manual_seed(0)  # the decoder's dropout
        for image in batches(args):
            sample = SegDataSample(gt_sem_seg=PixelData(data=(image[:, 0] > 0).long()))
            synchronize(args.device)
            start = time.perf_counter()
            maps = model.backbone(image)
            parts = model.decode_head.loss(maps, [sample], model.train_cfg)
            loss = parts['loss_bce'] + parts['loss_dice']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            synchronize(args.device)
            seconds += time.perf_counter() - start
            kept.append([x.cpu() for x in maps])
        found['seconds'].append(seconds)
        found['losses'].append(losses)
        found['maps'].append(kept)
    return found


def synchronize(device: torch.device) -> None:
    """Waits until the GPU has finished; does nothing on a CPU."""
    if device.type == 'cuda':
        torch.cuda.synchronize()


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Runs both variants and compares them."""
    plain = train(args, None)
    with tempfile.TemporaryDirectory() as folder:
        cached = train(args, folder)
        files = list(Path(folder).rglob('*.safetensors'))
        size = sum(path.stat().st_size for path in files)
    first, second = cached['maps']
    assert len(files) == len(first)
    assert all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    difference = max(
        abs(a - b) for x, y in zip(plain['losses'], cached['losses'], strict=True) for a, b in zip(x, y, strict=True)
    )
    assert difference < 1e-4, f'losses differ by {difference} from those without a cache'
    speedup = cached['seconds'][0] / cached['seconds'][1]
    rows = [
        (name, *(f'{seconds:.2f}' for seconds in run['seconds']), f'{run["seconds"][0] / run["seconds"][1]:.1f}')
        for name, run in (('without a cache', plain), ('with a cache', cached))
    ]
    text = '\n'.join(
        [
            f'{args.network} at {args.size}x{args.size} pixels on {args.device.type}, {len(first)} steps an epoch of '
            'one image each: seconds of each epoch.',
            '',
            table_text(('run', 'epoch 1', 'epoch 2', 'ratio'), rows),
            '',
            f'Maps of both epochs with a cache: equal bit by bit. Losses: at most {difference:.1e} from those without. '
            f'{size / len(files) / 2**20:.2f} MiB an image.',
            '',
            f'Target: the second epoch at least {SPEEDUP:g} times as fast as the first: '
            f'{"yes" if speedup >= SPEEDUP else "no"}.',
        ]
    )
    values = dict(
        network=args.network,
        size=args.size,
        steps=len(first),
        device=args.device.type,
        seconds={'without': plain['seconds'], 'with': cached['seconds']},
        speedup=speedup,
        max_loss_difference=difference,
        bytes_an_image=size / len(files),
        target_met=speedup >= SPEEDUP,
    )
    return values, text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and, with --save, writes benchmarks/results/sam_cache_DEVICE.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--network', choices=NETWORKS, default='sam_conv')
    parser.add_argument('--size', type=int, default=256, help='side of the images, in pixels')
    parser.add_argument('--images', type=int, default=2, help='number of images, each in eight views')
    parser.add_argument('--device', type=torch.device, default=torch.device('cpu'))
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args(arguments)
    values, text = measure(args)
    print(text)
    if args.save:
        for path in write_result(f'sam_cache_{args.device.type}', values, text):
            print(f'written: {path.name}')


if __name__ == '__main__':
    main()
