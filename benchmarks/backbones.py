"""Images per second of every backbone of this package, in one run.

    python benchmarks/backbones.py [--device cuda --dtype bfloat16 --size 256 512 --batch 1 16 64] [--compile] [--save]

Evaluation mode, channels-last, random weights (they do not affect the time). A batch that does not fit into the memory
of the device is skipped and shown as "-".
"""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.filterwarnings('ignore')

import lale_mmseg.register  # noqa: E402, F401
from benchmarks._memory import keep_freed_memory, peak_mebibytes  # noqa: E402
from benchmarks._timing import interleaved_medians, table_text, write_result  # noqa: E402
from lale_mmseg.models.backbones import LALE, GhostNet, LeMeViT, LRFormer  # noqa: E402
from lale_mmseg.models.backbones.ghostnet import ARCHS as GHOSTNET_ARCHS  # noqa: E402
from lale_mmseg.models.backbones.lale import ARCHS as LALE_ARCHS  # noqa: E402
from lale_mmseg.models.backbones.lemevit import ARCHS as LEMEVIT_ARCHS  # noqa: E402
from lale_mmseg.models.backbones.lrformer import ARCHS as LRFORMER_ARCHS  # noqa: E402

VARIANTS = {'LRSA': dict(type='LowResolutionSelfAttention'), 'meta': dict(type='MetaTokenAttention')}
BACKBONES: dict[str, Any] = {
    **{f'LALE-{arch.upper()}': partial(LALE, arch) for arch in LALE_ARCHS},
    **{f'LALE-S1-{name}': partial(LALE, 's1', attn_cfg=attn) for name, attn in VARIANTS.items()},
    **{f'LRFormer-{arch.upper()}': partial(LRFormer, arch) for arch in LRFORMER_ARCHS},
    **{f'LeMeViT-{arch}': partial(LeMeViT, arch) for arch in LEMEVIT_ARCHS},
    **{f'GhostNet-{arch}': partial(GhostNet, arch) for arch in GHOSTNET_ARCHS},
}


def predict(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> None:
    """Runs one forward pass and waits until it is finished."""
    with torch.inference_mode(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        model(images)
    if images.is_cuda:
        torch.cuda.synchronize()


def measure(model: nn.Module, batch: int, size: int, args: argparse.Namespace) -> dict[str, float] | None:
    """Images per second and peak MiB; None if the batch does not fit into the memory of the device."""
    try:
        images = torch.randn(batch, 3, size, size, device=args.device).contiguous(memory_format=torch.channels_last)
        call = partial(predict, model, images, getattr(torch, args.dtype))
        seconds = interleaved_medians({'': call}, args.repeats)['']
        return dict(images_per_second=batch / seconds, mebibytes=peak_mebibytes(call, args.device))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/backbones_DEVICE.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', type=torch.device, default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    parser.add_argument('--size', type=int, nargs='+', default=[256, 512], help='sides of the images, in pixels')
    parser.add_argument('--batch', type=int, nargs='+', default=[1, 4])
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--only', nargs='+', choices=list(BACKBONES), default=list(BACKBONES), metavar='NAME')
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    keep_freed_memory()

    settings = [(size, batch) for size in args.size for batch in args.batch]
    parameters: dict[str, int] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in args.only:
        model = BACKBONES[name]().eval().to(args.device, memory_format=torch.channels_last)
        parameters[name] = sum(p.numel() for p in model.parameters())
        ready = torch.compile(model) if args.compile else model
        found[name] = {f'{size}x{batch}': measure(ready, batch, size, args) for size, batch in settings}
        print(f'{name} measured', file=sys.stderr, flush=True)
    header = ('backbone', 'parameters', *(f'{size} px, batch {batch}' for size, batch in settings))
    rows = [
        (name, f'{parameters[name]:,}', *('-' if v is None else f'{v["images_per_second"]:.1f}' for v in row.values()))
        for name, row in found.items()
    ]
    text = f'Images a second, {args.dtype}{", compiled" if args.compile else ""}:\n\n{table_text(header, rows)}'
    print(text)
    if args.save:
        values = dict(measured=found, parameters=parameters, dtype=args.dtype, repeats=args.repeats)
        for path in write_result(f'backbones_{args.device.type}', dict(**values, compiled=args.compile), text):
            print(f'written: {path.name}')


if __name__ == '__main__':
    main()
