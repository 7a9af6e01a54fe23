"""Size and cost of the networks of configs: `python tools/analysis/complexity.py CONFIG...`.

Multiply-accumulates (MACs) are half of what torch's FlopCounterMode counts: convolutions, matrix products and
attention, without norms and activations.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS
from prettytable import PrettyTable
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lale_mmseg.cli.common import OverrideAction, run_command
from lale_mmseg.engine.config import complete_config, decode_heads
from lale_mmseg.engine.fields import check_overrides
from lale_mmseg.engine.network_check import check_heads
from lale_mmseg.errors import ConfigError, DataError


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description='Parameters, size and multiply-accumulates of a network.')
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config file; several make a table')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='size of the input image'
    )
    parser.add_argument(
        '--num-classes', type=int, default=7, help='used if the config leaves it to data that are not available'
    )
    parser.add_argument('--cfg-options', nargs='+', action=OverrideAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to this file')
    return parser.parse_args()


def build_network(cfg: Config, num_classes: int) -> nn.Module:
    """Builds the network of a config in evaluation mode; `num_classes` is used if neither config nor data set it."""
    try:
        cfg = complete_config(cfg)
    except DataError:
        for _, head in decode_heads(cfg):
            head.num_classes = head.num_classes or num_classes
        cfg = complete_config(cfg)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    check_heads(model)
    return model


def complexity(model: nn.Module, size: tuple[int, int], bands: int) -> dict[str, float]:
    """Figures of a network without its auxiliary heads, which predictions do not use.

    Args:
        model: A segmentor in evaluation mode.
        size: Height and width of the input, in pixels.
        bands: Number of input bands.

    Returns:
        `parameters`, `buffers` (numbers), `mebibytes` (both as float32) and `gmacs` (of one image).
    """
    parts = [part for name, part in model.named_children() if name not in ('auxiliary_head', 'data_preprocessor')]
    parameters = sum(p.numel() for part in parts for p in part.parameters())
    buffers = sum(b.numel() for part in parts for b in part.buffers())
    image = torch.zeros(1, bands, *size)
    # The counter's module tracker fails on views of parameters that require gradients.
    model.requires_grad_(False)
    # The counter does not know the fused attention kernels of CPUs; the plain form has the same products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image, mode='tensor')
    return dict(
        parameters=parameters,
        buffers=buffers,
        mebibytes=(parameters + buffers) * 4 / 2**20,
        gmacs=counter.get_total_flops() / 2e9,
    )


def figures_of(path: str, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of the network of a config file, see `complexity`, with its bands and classes."""
    if not Path(path).is_file():
        raise ConfigError(f'{path}: no such config file')
    cfg = Config.fromfile(path)
    check_overrides(cfg, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    model = build_network(cfg, args.num_classes)
    bands = (cfg.model.get('backbone') or cfg.model).get('in_channels', 3)
    return dict(config=path, bands=bands, classes=model.num_classes, **complexity(model, tuple(args.size), bands))


def main() -> None:
    """Prints the figures of one config, or a table of several."""
    args = parse_args()
    rows = [figures_of(path, args) for path in args.configs]
    size = f'{args.size[0]} x {args.size[1]}'
    if len(rows) == 1:
        (row,) = rows
        print(f'config      {row["config"]}')
        print(f'input       {row["bands"]} x {size}, {row["classes"]} classes')
        print(f'parameters  {row["parameters"]:,}')
        print(f'buffers     {row["buffers"]:,}')
        print(f'size        {row["mebibytes"]:.2f} MiB (float32)')
        print(f'GMACs       {row["gmacs"]:.3f}')
    else:
        table = PrettyTable(
            ['config', 'classes', 'parameters', 'buffers', 'MiB (float32)', f'GMACs, {size}'], align='r'
        )
        table.align['config'] = 'l'
        for row in rows:
            counts = [f'{row["parameters"]:,}', f'{row["buffers"]:,}']
            figures = [f'{row["mebibytes"]:.2f}', f'{row["gmacs"]:.3f}']
            table.add_row([Path(row['config']).stem, row['classes'], *counts, *figures])
        print(table)
    if args.json:
        content = rows[0] if len(rows) == 1 else rows
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    run_command(main)
