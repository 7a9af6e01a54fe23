"""Facts of the published networks: names and shapes of their weights, sizes, costs, and reference outputs.

`tests/data/published/NAME.json` holds `config`, `params`, `gmacs` ([height, width, GMACs] each) and `state`: published
name to shape, where `{a-b}` stands for every number from a to b, and counters of batch norm (int64) have the shape [].
Some hold `cases`: for an image of `height` x `width`, the shape, mean, standard deviation and `SAMPLES` evenly spaced
values of each output of the published code in float32 and eval mode, to seven digits. Their weights are those of
`published_state`, and images those of `image`: both are drawn anew from seeds, so no weights need to be kept.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import REPO

FACTS = REPO / 'tests' / 'data' / 'published'
BACKBONES = sorted(path.stem for path in FACTS.glob('*.json') if not path.stem.startswith(('lrhead', 'hrrsi')))
HEADS = sorted(path.stem for path in FACTS.glob('lrhead*.json'))
#: Whole networks: backbone and head under names of their own.
NETWORKS = sorted(path.stem for path in FACTS.glob('hrrsi*.json'))
#: Values of each output in `cases`, evenly spaced from its first to its last.
SAMPLES = 64
#: Largest error of an output, in standard deviations of the published one.
TOLERANCE = 1e-4
#: Endings of what is in a state dict without being a parameter.
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')


def facts(name: str) -> dict[str, Any]:
    """Contents of a file, `state` with one entry a name."""
    content = json.loads((FACTS / f'{name}.json').read_text())
    content['state'] = {key: shape for pattern, shape in content['state'].items() for key in expand(pattern)}
    return content


def expand(pattern: str) -> Iterator[str]:
    """All names that a pattern with ranges stands for."""
    found = re.search(r'\{(\d+)-(\d+)\}', pattern)
    if found is None:
        yield pattern
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from expand(f'{pattern[: found.start()]}{number}{pattern[found.end() :]}')


def published_state(name: str, device: str = 'cpu') -> dict[str, torch.Tensor]:
    """A made-up checkpoint with the published names and shapes; on 'meta' it weighs nothing."""
    shapes = facts(name)['state']
    if device == 'meta':
        return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
    return {key: weight(key, shape) for key, shape in shapes.items()}


def weight(key: str, shape: list[int]) -> torch.Tensor:
    """The made-up value of a weight or buffer: normal values of its own seed, the CRC-32 of its published name.

    Scales and variances lie around 1, means and biases around 0, and matrices and kernels keep the variance.
    """
    if key.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.int64)
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if key.endswith('running_mean'):
        return normal * 0.1
    if key.endswith('running_var'):
        return normal.abs() * 0.1 + 1
    if key.endswith('bias'):
        return normal * 0.05
    if normal.ndim < 2:  # scales of norms and layers
        return normal * 0.1 + 1
    return normal / max(1, normal[0].numel()) ** 0.5


def image(seed: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """The made-up input of a case, (1, channels, height, width)."""
    return torch.randn((1, channels, height, width), generator=torch.Generator().manual_seed(seed))


def check_outputs(outputs: Sequence[torch.Tensor], published: Sequence[dict[str, Any]]) -> None:
    """Compares the outputs of a network with those of a case; errors are bound by the published deviations."""
    for output, expected in zip(outputs, published, strict=True):
        values = output.flatten()
        samples = values[torch.linspace(0, len(values) - 1, SAMPLES).long()].tolist()
        assert list(output.shape) == expected['shape']
        found = dict(mean=values.mean().item(), std=values.std().item(), samples=samples)
        for figure, value in found.items():
            assert value == pytest.approx(expected[figure], rel=0, abs=TOLERANCE * expected['std']), figure


def rounded(value: Any) -> Any:
    """The same with every fraction to seven digits, as the files are written."""
    return json.loads(json.dumps(value), parse_float=lambda text: float(f'{float(text):.7g}'))


def parameters_in(state: dict[str, torch.Tensor]) -> int:
    """Number of parameters in a state dict."""
    return sum(value.numel() for name, value in state.items() if not name.endswith(BUFFERS))


def reference_root() -> Path | None:
    """Folder of the files that these facts are from (LALE_MMSEG_REFERENCE, or beside the repository), or None."""
    for candidate in (os.environ.get('LALE_MMSEG_REFERENCE'), REPO.parent / 'shared' / 'reference'):
        if candidate and (Path(candidate) / 'lrformer_t.json').is_file():
            return Path(candidate)
    return None
