"""Images per second of the networks of this package, and of the baselines in the LALE paper, in one run.

    python benchmarks/throughput.py [--device cuda --dtype bfloat16 --batch 1 64 512 --compile] [--save]

The baselines are networks of segmentation_models_pytorch with an efficientnet-b0 encoder. Weights are random, which
does not affect the time.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.filterwarnings('ignore')

import segmentation_models_pytorch as smp  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.model import revert_sync_batchnorm  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

import lale_mmseg.register  # noqa: E402, F401
from benchmarks._timing import interleaved_medians, table_text, write_result  # noqa: E402
from lale_mmseg.engine.config import decode_heads  # noqa: E402

NUM_CLASSES = 7
CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
#: Configs of this package and the changes to make to them, by the name in the table.
NETWORKS: dict[str, tuple[str, dict]] = {
    'LALE-S1': ('lale/lale_s1', {}),
    'LALE-S2': ('lale/lale_s1', {'backbone.arch': 's2'}),
    'LALE-S3': ('lale/lale_s1', {'backbone.arch': 's3'}),
    'LALE-S4': ('lale/lale_s1', {'backbone.arch': 's4'}),
    'LALE-S1, LRSA': ('lale/lale_s1', {'backbone.attn_cfg.type': 'LowResolutionSelfAttention'}),
    'LALE-S1, meta tokens': ('lale/lale_s1', {'backbone.attn_cfg.type': 'MetaTokenAttention'}),
    'LALE-S1, body/edge': ('lale/lale-body-edge_s1', {}),
    'UED+BES+SFM': ('body_edge/ued-bes-sfm_x10', {}),
    'LRFormer-T': ('lrformer/lrformer_t', {}),
    'LRFormer-T+': ('lrformer_plus/lrformer-plus_t', {}),
    'LeMeViT-tiny, LALE head': ('lemevit/lemevit-lale_tiny', {}),
    'LeMeViT-tiny, UPerNet': ('lemevit/lemevit_tiny', {}),
}
#: The CNN baselines of the paper.
BASELINES = {
    'DeepLabV3+': smp.DeepLabV3Plus,
    'FPN': smp.FPN,
    'LinkNet': smp.Linknet,
    'SegFormer': smp.Segformer,
    'U-Net': smp.Unet,
    'UPerNet': smp.UPerNet,
}


class Segmentor(nn.Module):
    """A network as defined by its config, from a normalized batch to logits of the input size."""

    def __init__(self, config: str, changes: dict) -> None:
        super().__init__()
        (path,) = CONFIGS.glob(f'{config}_1xb8-onecycle-400_palette-256x256.py')
        cfg = Config.fromfile(path)
        cfg.merge_from_dict({f'model.{name}': value for name, value in changes.items()})
        for _, head in decode_heads(cfg):
            head.num_classes = NUM_CLASSES
        self.network = revert_sync_batchnorm(MODELS.build(cfg.model))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 7, H, W)."""
        meta = dict(img_shape=x.shape[2:], pad_shape=x.shape[2:], ori_shape=x.shape[2:])
        return self.network.encode_decode(x, [meta] * len(x))


def networks() -> dict[str, nn.Module]:
    """All networks, in evaluation mode."""
    init_default_scope('mmseg')
    found: dict[str, nn.Module] = {name: Segmentor(config, changes) for name, (config, changes) in NETWORKS.items()}
    for name, kind in BASELINES.items():
        found[f'{name}, EfficientNet-B0'] = kind('efficientnet-b0', encoder_weights=None, classes=NUM_CLASSES)
    return {name: model.eval() for name, model in found.items()}


def runner(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Returns a function that predicts a batch and waits for the result."""

    def run() -> None:
        with torch.inference_mode(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            model(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    return run


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/throughput_DEVICE.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    parser.add_argument('--size', type=int, default=256, help='side of the images, in pixels')
    parser.add_argument('--batch', type=int, nargs='+', default=[1, 8])
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()

    models = networks()
    parameters = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    ready = {name: m.to(args.device, memory_format=torch.channels_last) for name, m in models.items()}
    if args.compile:
        ready = {name: torch.compile(model) for name, model in ready.items()}
    speeds: dict[str, dict[str, float]] = {name: {} for name in models}
    for batch in args.batch:
        images = torch.randn(batch, 3, args.size, args.size, device=args.device)
        images = images.contiguous(memory_format=torch.channels_last)
        runs = {name: runner(model, images, getattr(torch, args.dtype)) for name, model in ready.items()}
        for name, seconds in interleaved_medians(runs, args.repeats).items():
            speeds[name][str(batch)] = batch / seconds
    header = ('network', 'parameters', *(f'images/s, batch {batch}' for batch in args.batch))
    rows = [(name, f'{parameters[name]:,}', *(f'{speed:.1f}' for speed in speeds[name].values())) for name in models]
    text = table_text(header, rows)
    print(text)
    if args.save:
        name = f'throughput_{torch.device(args.device).type}'
        values = dict(images_per_second=speeds, parameters=parameters, **vars(args))
        for path in write_result(name, values, text):
            print(f'written: {path}')


if __name__ == '__main__':
    main()
