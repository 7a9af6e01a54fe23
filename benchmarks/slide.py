"""Time and peak memory for one large image in sliding windows: `Predictor` of this package against mmsegmentation.

    python benchmarks/slide.py [--size 4096] [--repeats 3] [--save]

LALE-S1 with random weights predicts a raw image on a CPU, including the data preprocessor. Runs alternate between the
variants. Each run is a separate process with the same number of threads and the same C library settings (those of
tools/test.py; --glibc-default keeps the defaults of the library). The results are medians. Memory is the peak of the
resident set, minus the resident set once network and image are loaded. The peak of torch's allocator is measured in
separate runs that are not timed. One more process compares the logits of the whole image, including its borders.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.filterwarnings('ignore')

from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

import lale_mmseg.register  # noqa: E402, F401
from benchmarks._memory import keep_freed_memory, peak_mebibytes  # noqa: E402
from benchmarks._timing import table_text, write_result  # noqa: E402
from lale_mmseg.inference import Predictor  # noqa: E402

CLASSES = 7
#: Options of test_cfg by name; None for mmsegmentation's own prediction.
VARIANTS: dict[str, dict[str, Any] | None] = {
    'mmsegmentation': None,
    'ours, all logits kept': dict(keep_logits=True),
    'ours, classes only': dict(keep_logits=False),
}
THEIRS, KEPT, CLASSES_ONLY = VARIANTS
#: Targets: at least this many times as fast, with at most this share of the memory.
SPEEDUP, MEMORY_SHARE = 2.5, 0.5


def build(name: str, args: argparse.Namespace) -> tuple[Any, Callable[[dict], list[SegDataSample]]]:
    """LALE-S1 with the same weights for every name, and a function that predicts a batch with it."""
    options = VARIANTS[name]
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(
                type='ChannelsLastDataPreProcessor',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
                bgr_to_rgb=True,
            ),
            backbone=dict(type='LALE', arch='s1'),
            decode_head=dict(type='LALEHead', num_classes=CLASSES, norm_cfg=dict(type='BN'), align_corners=False),
            test_cfg=ConfigDict(mode='slide', crop_size=(args.window,) * 2, stride=(args.stride,) * 2),
        )
    )
    model = model.eval().to(memory_format=torch.channels_last)
    if options is None:
        return model, model.test_step
    model.test_cfg.update(options, batch_size=args.batch_size)
    return model, Predictor(model)


def test_step(predict: Callable[[dict], list[SegDataSample]], image: Tensor) -> SegDataSample:
    """Predicts one image as a test loop does."""
    size = tuple(image.shape[1:])
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
    with torch.no_grad():
        return predict(dict(inputs=[image], data_samples=[sample]))[0]


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One timed run of `args.child`, in this process."""
    (model, predict), image = build(args.child, args), random_image(args.size)
    before = resident('VmRSS')
    test_step(predict, image[:, : args.window, : args.window])  # warm-up: work done once per process is not timed
    network = timed_network(model)
    start = time.perf_counter()
    test_step(predict, image)
    seconds = time.perf_counter() - start
    return dict(seconds=seconds, network=network(), before=before, peak=resident('VmHWM') - before)


def timed_network(model: Any) -> Callable[[], float]:
    """Starts timing the network. The returned function gives the seconds so far."""
    spent: list[float] = []
    encode_decode = model.encode_decode

    def timed(*inputs: Any) -> Tensor:
        start = time.perf_counter()
        logits = encode_decode(*inputs)
        spent.append(time.perf_counter() - start)
        return logits

    model.encode_decode = timed
    return lambda: sum(spent)


def allocated(args: argparse.Namespace) -> dict[str, float]:
    """Peak memory of torch's allocator in a run of `args.child`, in this process."""
    (_, predict), image = build(args.child, args), random_image(args.size)
    return dict(allocated=peak_mebibytes(lambda: test_step(predict, image), torch.device('cpu')))


def compare(args: argparse.Namespace) -> dict[str, float]:
    """Differences between the results of the variants, in this process."""
    image = random_image(args.size)
    theirs, kept, classes = (test_step(build(name, args)[1], image) for name in VARIANTS)
    found, expected = kept.seg_logits.data, theirs.seg_logits.data
    return dict(
        max_difference=max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)),
        max_logit=max(float(logits.abs().max()) for logits in expected),
        other_classes=int((kept.pred_sem_seg.data != theirs.pred_sem_seg.data).sum()),
        other_classes_without_logits=int((classes.pred_sem_seg.data != kept.pred_sem_seg.data).sum()),
    )


def random_image(size: int) -> Tensor:
    """A random uint8 image of shape (3, size, size), the same in every call."""
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def resident(field: str) -> float:
    """VmRSS (resident set) or VmHWM (its peak) of this process in MiB."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) / 2**10
    raise OSError(f'/proc/self/status has no {field}; Linux is needed')


def in_process(what: str, name: str, args: argparse.Namespace) -> dict[str, float]:
    """Runs `measure`, `allocated` or `compare` in a separate process."""
    options = [f'--{key}={getattr(args, key)}' for key in ('size', 'window', 'stride')]
    options += [f'--batch-size={args.batch_size}', f'--what={what}', f'--child={name}']
    options += ['--glibc-default'] if args.glibc_default else []
    done = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True)
    print(f'{what}: {name} done', file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def collect(args: argparse.Namespace) -> dict[str, Any]:
    """Takes all measurements and computes their medians."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(args.repeats):
        for name in VARIANTS:
            runs[name].append(in_process('measure', name, args))
    medians = {
        name: {key: statistics.median(run[key] for run in of_name) for key in of_name[0]}
        for name, of_name in runs.items()
    }
    for name, values in medians.items():
        values.update(in_process('allocated', name, args))
    return dict(runs=runs, medians=medians, results=in_process('compare', THEIRS, args))


def report(found: dict[str, Any], args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The ratios, whether they meet the targets, and a text with all results."""
    medians, results = found['medians'], found['results']
    theirs = medians[THEIRS]
    ratios = {
        name: dict(
            speedup=theirs['seconds'] / values['seconds'],
            memory_share=values['peak'] / theirs['peak'],
            allocated_share=values['allocated'] / theirs['allocated'],
        )
        for name, values in medians.items()
    }
    met = {
        name: ratio['speedup'] >= SPEEDUP and max(ratio['memory_share'], ratio['allocated_share']) <= MEMORY_SHARE
        for name, ratio in ratios.items()
        if name != THEIRS
    }
    header = ('', 's', 'of them network', 'times as fast', 'peak MiB', 'share', 'torch peak MiB', 'share')
    rows = [
        (
            name,
            f'{values["seconds"]:.1f}',
            f'{values["network"]:.1f}',
            f'{ratios[name]["speedup"]:.2f}',
            f'{values["peak"]:.0f}',
            f'{ratios[name]["memory_share"]:.2f}',
            f'{values["allocated"]:.0f}',
            f'{ratios[name]["allocated_share"]:.2f}',
        )
        for name, values in medians.items()
    ]
    lines = [
        f'LALE-S1, one image of {args.size}x{args.size} pixels, windows of {args.window} every {args.stride} pixels, '
        f'{CLASSES} classes; medians of {args.repeats} runs, each in a process of its own.',
        '',
        table_text(header, rows),
        '',
        f'Largest difference of the averaged logits: {results["max_difference"]:.2g} (largest logit '
        f'{results["max_logit"]:.2g}). Pixels of another class: {results["other_classes"]} with all logits kept, '
        f'{results["other_classes_without_logits"]} more without.',
        '',
        *(
            f'{name}: {SPEEDUP} times as fast and at most {MEMORY_SHARE} of the memory: {"yes" if good else "no"}.'
            for name, good in met.items()
        ),
    ]
    return dict(**found, ratios=ratios, targets_met=met, settings=vars(args)), '\n'.join(lines)


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/slide_cpu.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=4096, help='side of the image, in pixels')
    parser.add_argument('--window', type=int, default=512, help='side of the windows, in pixels')
    parser.add_argument('--stride', type=int, default=341, help='steps between windows, in pixels')
    parser.add_argument('--batch-size', type=int, default=1, help='windows per forward pass, for Predictor only')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--glibc-default', action='store_true', help='keep the defaults of the C library')
    parser.add_argument('--save', action='store_true')
    parser.add_argument('--child', choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument('--what', choices=('measure', 'allocated', 'compare'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        if not args.glibc_default:
            keep_freed_memory()
        print(json.dumps({'measure': measure, 'allocated': allocated, 'compare': compare}[args.what](args)))
        return
    values, text = report(collect(args), args)
    print(text)
    if args.save:
        for path in write_result('slide_cpu', values, text):
            print(f'written: {path.name}')


if __name__ == '__main__':
    main()
