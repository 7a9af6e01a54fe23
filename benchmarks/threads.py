"""Time of a training step of LALE-S1 on a CPU with different settings of OpenMP, alone and beside another training.

    python benchmarks/threads.py [--steps 6] [--repeats 3] [--save]

Each measurement is a process of its own, since OpenMP reads its settings when it is loaded. The other training is a
second process with the settings of the system. Settings alternate, and the results are medians over the repeats.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import REPOSITORY, table_text, write_result

#: Environment by the name of the setting.
SETTINGS: dict[str, dict[str, str]] = {
    'default': {},
    'OMP_WAIT_POLICY=PASSIVE': dict(OMP_WAIT_POLICY='PASSIVE'),
    'OMP_NUM_THREADS=1': dict(OMP_NUM_THREADS='1'),
}
LOADS = ('alone', 'beside another training')


def step_time(steps: int) -> float:
    """Median seconds of a step on 8 crops of 256x256, after two steps to warm up; never ends without `steps`."""
    import torch
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    import lale_mmseg.register  # noqa: F401

    init_default_scope('mmseg')
    cfg = Config.fromfile(REPOSITORY / 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py').model
    cfg.decode_head.num_classes = 7
    model = revert_sync_batchnorm(MODELS.build(cfg)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters())
    samples = [SegDataSample() for _ in range(8)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 7, (1, 256, 256)))
    images = torch.randn(8, 3, 256, 256).to(memory_format=torch.channels_last)
    times: list[float] = []
    while steps == 0 or len(times) < steps + 2:
        start = time.perf_counter()
        loss = sum(value for name, value in model.loss(images, samples).items() if 'loss' in name)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def start(steps: int, environment: dict[str, str]) -> subprocess.Popen:
    """Starts a process that prints its `step_time`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(('OMP_', 'MKL_', 'GOMP_'))}
    command = [sys.executable, __file__, '--child', str(steps)]
    return subprocess.Popen(command, env={**kept, **environment}, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/threads_cpu.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=6)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--save', action='store_true')
    parser.add_argument('--child', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(step_time(args.child))
        return
    times: dict[str, dict[str, list[float]]] = {name: {load: [] for load in LOADS} for name in SETTINGS}
    for load in LOADS:
        other = start(0, {}) if load != 'alone' else None
        try:
            for _ in range(args.repeats):
                for name, environment in SETTINGS.items():
                    times[name][load].append(float(start(args.steps, environment).communicate()[0].split()[-1]))
                    print(f'{load}, {name}: {times[name][load][-1]:.2f} s', flush=True)
        finally:
            if other is not None:
                other.kill()
    medians = {name: {load: statistics.median(times[name][load]) for load in LOADS} for name in SETTINGS}
    rows = [(name, *(f'{medians[name][load]:.2f}' for load in LOADS)) for name in SETTINGS]
    text = table_text(('setting', *(f's per step, {load}' for load in LOADS)), rows)
    print(text)
    if args.save:
        for path in write_result('threads_cpu', dict(medians=medians, times=times, **vars(args)), text):
            print(f'written: {path}')


if __name__ == '__main__':
    main()
