"""Time and peak memory of each attention for growing image sizes, and of fused against plain attention, in one run.

    python benchmarks/attention.py [--device cuda --dtype bfloat16] [--sizes 256 512 1024 2048] [--save]

Prints three tables: the backbone of LALE-S1 with each attention; a single attention layer on the feature map of stage 3
(stride 16, width 128); and LeMeViT-tiny with torch's fused scaled dot-product attention against matrix products and a
softmax. Batch size 1, evaluation mode, random weights (they do not affect the time). The first two tables also show the
ratios of time and memory between consecutive sizes. If the sizes double, a ratio of 4 is linear in pixels, and 16 is
quadratic. The C library is set to keep freed memory, so that page faults cost no time.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.filterwarnings('ignore')

import lale_mmseg.register  # noqa: E402, F401
from benchmarks._memory import keep_freed_memory, peak_mebibytes  # noqa: E402
from benchmarks._timing import interleaved_medians, table_text, write_result  # noqa: E402
from lale_mmseg.models.attention import (  # noqa: E402
    LowResolutionSelfAttention,
    MetaTokenAttention,
    MultiHeadAttention,
)
from lale_mmseg.models.backbones import LALE, LeMeViT  # noqa: E402

SELF, LRSA, META = (
    dict(type=kind.__name__) for kind in (MultiHeadAttention, LowResolutionSelfAttention, MetaTokenAttention)
)
#: Attention of LALE-S1, by name.
VARIANTS: dict[str, Any] = {
    'self-attention in stages 3, 4': SELF,
    'LRSA in stages 3, 4': LRSA,
    'meta tokens in stages 3, 4': META,
    'LRSA in all stages': [LRSA] * 4,
    'meta tokens in all stages': [META] * 4,
}
LAYERS: dict[str, type[nn.Module]] = {
    'self-attention': MultiHeadAttention,
    'LRSA': LowResolutionSelfAttention,
    'meta tokens': MetaTokenAttention,
}
LAYER_STRIDE, LAYER_WIDTH, LAYER_HEADS = 16, 128, 4


class AttentionForm(TorchFunctionMode):
    """Runs attention unchanged, or as matrix products and a softmax.

    Both forms are timed under this mode, so that both include its overhead.
    """

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.plain = plain

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.plain and func is F.scaled_dot_product_attention:
            return plain_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale) v, with the whole attention matrix in memory."""
    assert dropout_p == 0.0
    scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return scores.softmax(dim=-1) @ v


def run(function: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> None:
    """Calls a function as a prediction does, and waits for the result."""
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        function()
    if device.type == 'cuda':
        torch.cuda.synchronize()


def measure(
    functions: Mapping[str, Callable[[], Any]], device: torch.device, repeats: int
) -> dict[str, dict[str, Any]]:
    """Median seconds and peak MiB of each function."""
    seconds = interleaved_medians(functions, repeats, warmup=1)
    return {
        name: dict(seconds=seconds[name], mebibytes=peak_mebibytes(function, device))
        for name, function in functions.items()
    }


def growth(
    calls_of_size: Callable[[int], Mapping[str, Callable[[], Any]]], args: argparse.Namespace
) -> dict[str, dict[int, dict[str, Any]]]:
    """Results of `measure`, by name and image size."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for size in args.sizes:
        calls = {name: partial(run, call, args.device, args.torch_dtype) for name, call in calls_of_size(size).items()}
        repeats = max(3, int(args.repeats * (args.sizes[0] / size)))
        for name, values in measure(calls, args.device, repeats).items():
            found.setdefault(name, {})[size] = values
        print(f'{size} pixels measured', file=sys.stderr, flush=True)
    return found


def backbone_calls(models: Mapping[str, nn.Module], device: torch.device, size: int) -> dict[str, Callable[[], Any]]:
    """Each backbone on one image."""
    image = torch.randn(1, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    return {name: partial(model, image) for name, model in models.items()}


def layer_calls(layers: Mapping[str, nn.Module], device: torch.device, size: int) -> dict[str, Callable[[], Any]]:
    """Each attention layer on the feature map of one image."""
    side = size // LAYER_STRIDE
    tokens = torch.randn(1, side * side, LAYER_WIDTH, device=device)
    return {name: partial(layer, tokens, (side, side)) for name, layer in layers.items()}


def fused_against_plain(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """LeMeViT-tiny with the fused and with the plain form of attention."""
    model = LeMeViT('tiny').eval().to(args.device, memory_format=torch.channels_last)
    image = torch.randn(1, 3, 512, 512, device=args.device).contiguous(memory_format=torch.channels_last)

    def in_form(plain: bool) -> None:
        with AttentionForm(plain):
            model(image)

    calls = {
        name: partial(run, partial(in_form, plain), args.device, args.torch_dtype)
        for name, plain in (('fused', False), ('plain', True))
    }
    return measure(calls, args.device, args.repeats)


def growth_table(found: Mapping[str, Mapping[int, Mapping[str, Any]]], sizes: list[int]) -> str:
    """Milliseconds and MiB of each size, with the ratios between consecutive sizes."""
    doubled = all(after == 2 * before for before, after in pairwise(sizes))
    ratios = 'ratios (4: linear in pixels)' if doubled else 'ratios'
    header = ['', *(f'ms at {size}' for size in sizes), ratios, *(f'MiB at {size}' for size in sizes), ratios]
    rows = []
    for name, by_size in found.items():
        row = [name]
        for key, unit, digits in (('seconds', 1e3, 1), ('mebibytes', 1, 1)):
            values = [by_size[size][key] for size in sizes]
            row += [f'{value * unit:.{digits}f}' for value in values]
            row.append(' '.join(f'{after / before:.1f}' for before, after in pairwise(values)))
        rows.append(row)
    return table_text(header, rows)


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/attention_DEVICE.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', type=torch.device, default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    parser.add_argument('--sizes', type=int, nargs='+', default=[256, 512, 1024, 2048], help='sides of the images')
    parser.add_argument('--repeats', type=int, default=25, help='timed runs at the first size; larger sizes get fewer')
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    args.torch_dtype = getattr(torch, args.dtype)
    memory_kept = keep_freed_memory()

    models = {
        name: LALE('s1', attn_cfg=attn).eval().to(args.device, memory_format=torch.channels_last)
        for name, attn in VARIANTS.items()
    }
    layers = {name: kind(LAYER_WIDTH, LAYER_HEADS).eval().to(args.device) for name, kind in LAYERS.items()}
    values: dict[str, Any] = {
        'lale_s1': growth(partial(backbone_calls, models, args.device), args),
        'layer': growth(partial(layer_calls, layers, args.device), args),
        'lemevit_tiny_512': fused_against_plain(args),
    }
    forms = values['lemevit_tiny_512']
    speedup = forms['plain']['seconds'] / forms['fused']['seconds']
    rows = [(name, f'{v["seconds"] * 1e3:.1f}', f'{v["mebibytes"]:.0f}') for name, v in forms.items()]
    text = '\n\n'.join(
        [
            'LALE-S1, backbone alone, one image:',
            growth_table(values['lale_s1'], args.sizes),
            f'One attention layer over the map of stride {LAYER_STRIDE}, width {LAYER_WIDTH}, {LAYER_HEADS} heads:',
            growth_table(values['layer'], args.sizes),
            f'LeMeViT-tiny at 512 pixels: the fused form is {speedup:.2f} times as fast as the plain one.',
            table_text(('form', 'ms', 'MiB'), rows),
        ]
    )
    print(text)
    if args.save:
        name = f'attention_{args.device.type}'
        settings = dict(memory_kept=memory_kept, dtype=args.dtype, sizes=args.sizes, repeats=args.repeats)
        for path in write_result(name, dict(**values, fused_speedup=speedup, **settings), text):
            print(f'written: {path.name}')


if __name__ == '__main__':
    main()
