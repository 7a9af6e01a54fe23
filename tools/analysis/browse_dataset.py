"""Pictures of what a network is trained on: `python tools/analysis/browse_dataset.py CONFIG`.

Draws samples as they leave the training pipeline, cropped and augmented, beside their labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmseg.registry import DATASETS

from lale_mmseg.cli.common import add_overrides, load_config, run_command
from lale_mmseg.engine import held_out
from lale_mmseg.engine.config import complete_config
from lale_mmseg.errors import ConfigError, InputError
from lale_mmseg.evaluation.overlay import panel, to_display
from lale_mmseg.files import save_png


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Draws training samples, augmented, with their labels.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--phase', choices=('train', 'val'), default='train', help='default: train')
    parser.add_argument('--number', type=int, default=16, metavar='N', help='samples to draw (default: 16)')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of samples and of augmentation (default: 0)')
    parser.add_argument('--out-dir', type=Path, metavar='DIR', help='default: work_dirs/browse/CONFIG')
    add_overrides(parser, 'override fields of the config; see tools/train.py')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0, trust_checkpoint=False)
    return parser.parse_args()


def main() -> None:
    """Draws the samples."""
    args = parse_args()
    cfg = complete_config(load_config(args))
    loader = cfg.get(f'{args.phase}_dataloader')
    if loader is None:
        raise ConfigError(f'{args.config}: no field {args.phase}_dataloader')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    held_out.check(cfg, (args.phase,))
    dataset: BaseDataset = DATASETS.build(loader.dataset)
    if len(dataset) == 0:
        raise InputError(f'{args.phase}_dataloader.dataset has no images')
    set_random_seed(args.seed)
    out_dir = args.out_dir or Path('work_dirs/browse', Path(args.config).stem)
    bgr = bool((cfg.model.get('data_preprocessor') or {}).get('bgr_to_rgb'))
    for number, index in enumerate(np.random.default_rng(args.seed).integers(len(dataset), size=args.number)):
        sample = dataset[int(index)]
        packed = sample['data_samples']
        image = to_display(sample['inputs'].permute(1, 2, 0).numpy(), bgr)
        maps = {'Labels': packed.gt_sem_seg.data[0].numpy()} if 'gt_sem_seg' in packed else {}
        name = Path(packed.img_path).name
        drawn = panel(name, image, maps, dataset.metainfo['classes'], dataset.metainfo['palette'])
        save_png(out_dir / f'{number:03d}_{Path(name).stem}.png', drawn)
    print(f'{args.number} samples of {args.phase} ({len(dataset)} images) drawn in {out_dir}')


if __name__ == '__main__':
    run_command(main)
