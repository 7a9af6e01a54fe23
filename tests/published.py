"""What is known of the published networks: names and shapes of their weights, sizes, costs, and reference outputs.

`tests/data/published/NAME.json` holds `config`, `params`, `gmacs` ([height, width, GMACs] each) and `state`: published
name to shape, where `{a-b}` stands for every number from a to b, and counters of batch norm (int64) have the shape [].
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.support import REPO

FACTS = REPO / 'tests' / 'data' / 'published'
BACKBONES = sorted(path.stem for path in FACTS.glob('*.json') if not path.stem.startswith('lrhead'))
HEADS = sorted(path.stem for path in FACTS.glob('lrhead*.json'))
#: Endings of what is in a state dict without being a parameter.
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')


def facts(name: str) -> dict[str, Any]:
    """Contents of a file, `state` with one entry a name."""
    content = json.loads((FACTS / f'{name}.json').read_text())
    content['state'] = {key: shape for pattern, shape in content['state'].items() for key in expand(pattern)}
    return content


def expand(pattern: str) -> Iterator[str]:
    """All names that a pattern with ranges stands for."""
    texts = re.split(r'\{\d+-\d+\}', pattern)
    ranges = [range(int(first), int(last) + 1) for first, last in re.findall(r'\{(\d+)-(\d+)\}', pattern)]
    for numbers in itertools.product(*ranges):
        yield texts[0] + ''.join(f'{number}{text}' for number, text in zip(numbers, texts[1:], strict=True))


def published_state(name: str, device: str = 'cpu') -> dict[str, torch.Tensor]:
    """A made-up checkpoint with the published names and shapes; on 'meta' it weighs nothing."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in facts(name)['state'].items():
        if device == 'meta':
            state[key] = torch.empty(shape, device='meta')
        elif key.endswith('num_batches_tracked'):
            state[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            state[key] = torch.rand(shape, generator=generator)
    return state


def parameters_in(state: dict[str, torch.Tensor]) -> int:
    """Number of parameters in a state dict."""
    return sum(value.numel() for name, value in state.items() if not name.endswith(BUFFERS))


def reference_root() -> Path | None:
    """Folder of the reference outputs (LALE_MMSEG_REFERENCE, or beside the repository), None where there is none."""
    for candidate in (os.environ.get('LALE_MMSEG_REFERENCE'), REPO.parent / 'shared' / 'reference'):
        if candidate and (Path(candidate) / 'fill.py').is_file():
            return Path(candidate)
    return None


def reference_fill(root: Path):
    """The module that draws the weights and inputs of the reference outputs."""
    spec = importlib.util.spec_from_file_location('reference_fill', root / 'fill.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
