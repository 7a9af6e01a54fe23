"""Networks of other libraries and their weights: libraries that may be absent, files read safely, one-line errors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError

#: Seconds to wait for the first answer of a server of weights.
_TIMEOUT = 5.0
#: Entries under which files of other projects keep their weights.
_ENTRIES = ('state_dict', 'model')
_SHOWN = 3


def import_extra(module: str) -> Any:
    """A module that the package itself does not need.

    Raises:
        ConfigError: It is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition('.')[0]:
            raise
        raise ConfigError(
            f'this network needs {error.name}, which is not installed: pip install "lale_mmseg[baselines]" '
            '(tools/setup_env.sh installs it)'
        ) from None


@contextmanager
def weights_of(part: str, source: str, field: str) -> Iterator[None]:
    """Turns every failure to get or load pretrained weights into one error.

    Args:
        part: The network that they are for.
        source: Name or file of the weights.
        field: Config field that chooses them.

    Raises:
        CheckpointError: Names all of them, and what else can be done.
    """
    try:
        yield
    except Exception as error:  # of sockets, of three libraries, or of a file
        reason = str(error).strip().splitlines() or ['no message']
        kind = '' if isinstance(error, CheckpointError) else f'{type(error).__name__}: '
        raise CheckpointError(
            f'pretrained weights {source!r} of {part} cannot be loaded: {kind}{reason[0]}. Set '
            f'{field}=/path/to/file for a file of this machine, or start from random weights with --random-init'
        ) from None


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights by name from a file of safetensors or torch, without running any code of it.

    Raises:
        CheckpointError: It is missing, damaged, or holds something else.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f'{path}: no such file')
    try:
        if file.suffix == '.safetensors':
            content = import_extra('safetensors.torch').load_file(file)
        else:
            content = torch.load(file, map_location='cpu', weights_only=True)
    except ConfigError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f'{path}: damaged, or more than weights and plain data ({reason})') from None
    for entry in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f'{path}: weights by name are due')
    return {name.removeprefix('module.'): value for name, value in content.items()}


def download_weights(repo_id: str, revision: str | None = None) -> Path:
    """`model.safetensors` of a repository on the Hugging Face hub, from its cache on this machine if it is there.

    The hub's own client asks again and again for half a minute where there is no network; here one question shows it.
    """
    hub = import_extra('huggingface_hub')
    name = 'model.safetensors'
    if not isinstance(hub.try_to_load_from_cache(repo_id, name, revision=revision), str):
        hub.get_hf_file_metadata(hub.hf_hub_url(repo_id, name, revision=revision), timeout=_TIMEOUT)
    return Path(hub.hf_hub_download(repo_id, name, revision=revision, etag_timeout=_TIMEOUT))


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor], optional: frozenset[str] = frozenset()) -> None:
    """Loads weights that must be those of a module, no more and no less.

    Args:
        module: Gets the weights.
        weights: By name.
        optional: Names that may be missing.

    Raises:
        CheckpointError: A weight is missing, left over, or of another shape; the module is as it was.
    """
    own = module.state_dict()
    wrong = [f'{name} is missing' for name in own if name not in weights and name not in optional]
    wrong += [f'{name} is not of this network' for name in weights if name not in own]
    wrong += [
        f'{name} is {tuple(value.shape)}, not {tuple(own[name].shape)}'
        for name, value in weights.items()
        if name in own and value.shape != own[name].shape
    ]
    if wrong:
        more = f' and {len(wrong) - _SHOWN} more' if len(wrong) > _SHOWN else ''
        raise CheckpointError(f'{len(wrong)} of its weights do not fit: {", ".join(wrong[:_SHOWN])}{more}')
    module.load_state_dict(dict(weights), strict=False)
