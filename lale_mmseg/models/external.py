"""Pretrained weights of networks of other libraries: download, safe reading, exact loading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import CheckpointError

#: Seconds to wait for the first answer of the hub.
_TIMEOUT = 5.0
#: Entries under which files of other projects keep their weights.
_ENTRIES = ('state_dict', 'model')
_SHOWN = 3


@contextmanager
def weights_of(part: str, source: str, field: str) -> Iterator[None]:
    """Turns every failure to download, read or load pretrained weights into one error.

    Args:
        part: Name of the network, for the message.
        source: Name or file of the weights.
        field: Config field that selects them.

    Raises:
        CheckpointError: The block raised an exception; names its cause and the alternatives.
    """
    try:
        yield
    except Exception as error:  # of sockets, of three libraries, or of a file
        reason = str(error).strip().splitlines() or ['no message']
        kind = '' if isinstance(error, CheckpointError) else f'{type(error).__name__}: '
        raise CheckpointError(
            f'pretrained weights {source!r} of {part} cannot be loaded: {kind}{reason[0]}. Set '
            f'{field}=/path/to/file to use a local file, or pass --random-init to start from random weights'
        ) from None


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads a state dict from a safetensors or torch file without running any code from it.

    Raises:
        CheckpointError: The file is missing or damaged, or contains something else.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f'{path}: no such file')
    try:
        content = (
            load_file(file)
            if file.suffix == '.safetensors'
            else torch.load(file, map_location='cpu', weights_only=True)
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f'{path}: damaged, or contains more than weights and plain data ({reason})') from None
    for entry in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f'{path}: expected a state dict')
    return {name.removeprefix('module.'): value for name, value in content.items()}


def download_weights(repo_id: str, revision: str | None = None) -> Path:
    """Returns `model.safetensors` of a repository on the Hugging Face hub, from the local cache if possible."""
    name = 'model.safetensors'
    if not isinstance(huggingface_hub.try_to_load_from_cache(repo_id, name, revision=revision), str):
        # Without a network, the hub's client would retry for half a minute; this request fails at once.
        url = huggingface_hub.hf_hub_url(repo_id, name, revision=revision)
        huggingface_hub.get_hf_file_metadata(url, timeout=_TIMEOUT)
    return Path(huggingface_hub.hf_hub_download(repo_id, name, revision=revision, etag_timeout=_TIMEOUT))


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor], optional: frozenset[str] = frozenset()) -> None:
    """Loads weights that must match a module exactly.

    Args:
        module: Receives the weights.
        weights: The state dict.
        optional: Names that may be missing.

    Raises:
        CheckpointError: A weight is missing, unexpected, or of another shape; the module is left unchanged.
    """
    own = module.state_dict()
    wrong = [f'{name} is missing' for name in own if name not in weights and name not in optional]
    for name, value in weights.items():
        if name not in own:
            wrong.append(f'{name} is unexpected')
        elif value.shape != own[name].shape:
            wrong.append(f'{name} has shape {tuple(value.shape)} instead of {tuple(own[name].shape)}')
    if wrong:
        more = f' and {len(wrong) - _SHOWN} more' if len(wrong) > _SHOWN else ''
        raise CheckpointError(f'{len(wrong)} weights do not match: {", ".join(wrong[:_SHOWN])}{more}')
    module.load_state_dict(dict(weights), strict=False)
