"""Checkpoints as plain data: reading one runs no code, and writing one leaves a complete file or none.

Checkpoints of this package hold only tensors and plain values, so `torch.load(..., weights_only=True)` reads them. The
entry `lale_mmseg` is a JSON text with everything needed to rebuild the network and to name its classes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MMLogger
from torch import Tensor, nn

from .. import __version__
from ..errors import CheckpointError

#: Key of the JSON text in a checkpoint.
DESCRIPTION_KEY = 'lale_mmseg'
_HISTORY = '__history__'
_SHOWN = 5
_NUMBERED = re.compile(r'(iter|epoch)_(\d+)\.pth')
#: Matches the messages of torch when weights_only prevents reading a file.
_REFUSAL = re.compile(r'unsupported (global|operand|class)|not an allowed global|is blocked', re.IGNORECASE)


@dataclass(frozen=True)
class Description:
    """Description of the network in a checkpoint: its training config, classes and colours."""

    config: dict
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    version: str


def describe(cfg: Config, dataset_meta: Mapping[str, Any] | None) -> str:
    """Returns the JSON text for `DESCRIPTION_KEY`."""
    meta = dataset_meta or {}
    content = dict(
        version=__version__,
        classes=list(meta.get('classes') or ()),
        palette=[[int(value) for value in color] for color in meta.get('palette') or ()],
        config=cfg.to_dict(),
    )
    # Lazy configs hold classes and functions; their names are stored for readers, and never called.
    return json.dumps(content, default=repr)


def description_of(checkpoint: Mapping[str, Any], source: str | Path) -> Description:
    """Parses the description in a checkpoint.

    Raises:
        CheckpointError: The checkpoint has no description, or it is damaged.
    """
    text = checkpoint.get(DESCRIPTION_KEY)
    if not isinstance(text, str):
        raise CheckpointError(
            f'{source}: no entry {DESCRIPTION_KEY!r} with config and classes, so it was not written by lale_mmseg. Use '
            'tools/test.py with a config file instead'
        )
    try:
        content = json.loads(text)
        return Description(
            config=dict(content['config']),
            classes=tuple(content['classes']),
            palette=tuple(tuple(color) for color in content['palette']),
            version=str(content['version']),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f'{source}: its description is damaged ({error!r})') from None


def read_plain(path: str | Path, map_location: Any = 'cpu', trust: bool = False) -> dict:
    """Reads the mapping in a torch file without running any code from it.

    Args:
        path: Local file, or an http(s) address.
        map_location: See `torch.load`.
        trust: Unpickle anything, which may run code of the file's author.

    Raises:
        CheckpointError: The file is missing, damaged or not a mapping, or holds more than plain data and is not
            trusted.
    """
    is_address = str(path).startswith(('http://', 'https://'))
    file = Path(path).expanduser()
    if not is_address and not file.is_file():
        raise CheckpointError(f'{path}: no such checkpoint')
    options: dict[str, Any] = dict(map_location=map_location, weights_only=not trust)
    try:
        with torch.serialization.safe_globals([] if trust else _safe_globals()):
            content = (
                torch.hub.load_state_dict_from_url(str(path), **options) if is_address else torch.load(file, **options)
            )
    except Exception as error:
        # torch reports damage as RuntimeError, EOFError or UnpicklingError, and refusal as UnpicklingError.
        refused = next((line.strip() for line in str(error).splitlines() if _REFUSAL.search(line)), None)
        if refused is not None and (is_address or _is_archive_or_pickle(file)):
            raise CheckpointError(
                f'{path}: refused, because it holds more than weights and plain data, and reading that could run code '
                f'({refused}). If you trust its author, pass --trust-checkpoint to load it anyway'
            ) from None
        raise CheckpointError(f'{path}: damaged or not a checkpoint ({type(error).__name__}: {error})') from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path}: holds a {type(content).__name__}, expected a dict with a state_dict')
    return dict(content)


def _is_archive_or_pickle(file: Path) -> bool:
    """Whether a file can be a checkpoint at all; trusting the author of, for example, a web page does not help."""
    with open(file, 'rb') as stream:
        return stream.read(2).startswith((b'PK', b'\x80'))


def read_checkpoint(path: str | Path, map_location: Any = 'cpu', trust: bool = False) -> dict:
    """Reads a checkpoint without running any code from it.

    Args:
        path: Local file, or an http(s) address.
        map_location: See `torch.load`.
        trust: Unpickle anything, which may run code of the file's author.

    Returns:
        The checkpoint; a bare state dict is stored under `state_dict`.

    Raises:
        CheckpointError: The file is missing or damaged, or holds more than plain data and is not trusted.
    """
    checkpoint = read_plain(path, map_location, trust)
    if 'state_dict' not in checkpoint:
        if not all(isinstance(value, Tensor) for value in checkpoint.values()):
            raise CheckpointError(f'{path}: no state_dict; its entries are {", ".join(map(str, checkpoint))}')
        checkpoint = {'state_dict': checkpoint, 'meta': {}}
    # mmengine executes this entry as Python when it resumes.
    checkpoint.setdefault('meta', {}).pop('config', None)
    return checkpoint


def load_weights(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    source: str | Path,
    partial: bool = False,
    advice: str = 'set partial_load=True to load the weights that fit',
) -> None:
    """Loads weights into a model: all of them, or none and an error.

    Args:
        model: The network, not wrapped.
        state_dict: Weights by name.
        source: Name of the checkpoint, for messages.
        partial: Load the weights that fit, and log the others.
        advice: End of the error message: what to do about weights that do not fit.

    Raises:
        CheckpointError: Names or shapes differ (the message lists the first of each), or nothing fits at all.
    """
    state = OrderedDict(state_dict)
    # Module versions of the writer, which decide how torch converts older states.
    state._metadata = getattr(state_dict, '_metadata', None)  # type: ignore[attr-defined]
    own = model.state_dict()
    reshaped = [name for name in state if name in own and _shape(state[name]) != _shape(own[name])]
    # Files of older releases lack the counters of BatchNorm, which then start at 0.
    missing = [name for name in own if name not in state and not name.endswith('.num_batches_tracked')]
    unexpected = [name for name in state if name not in own]
    fitting = len(state) - len(unexpected) - len(reshaped)
    shapes = [f'{name} {_shape(state[name])} instead of {_shape(own[name])}' for name in reshaped]
    problems = '; '.join(
        [
            *_listed('not in the checkpoint', missing),
            *_listed('not in the model', unexpected),
            *_listed('of another shape', shapes),
        ]
    )
    if problems and not (partial and fitting):
        hint = f'; {advice}' if advice and not partial else ''
        raise CheckpointError(
            f'{source}: does not fit this model ({fitting} of {len(own)} entries match): {problems}{hint}'
        )
    if problems:
        MMLogger.get_current_instance().warning(f'{source}: loaded {fitting} of {len(own)} entries; {problems}')
    for name in [*unexpected, *reshaped]:
        del state[name]
    model.load_state_dict(state, strict=False)


def rename_weights(state_dict: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> Mapping[str, Tensor]:
    """Applies (regular expression, replacement) rules to the names in a state dict, keeping its metadata."""
    renamed = OrderedDict(state_dict)
    for pattern, replacement in rules:
        renamed = OrderedDict((re.sub(pattern, replacement, name), value) for name, value in renamed.items())
    renamed._metadata = getattr(state_dict, '_metadata', None)  # type: ignore[attr-defined]
    return renamed


def newest_checkpoint(folder: str | Path) -> tuple[Path | None, list[str]]:
    """Finds the newest readable checkpoint in a work dir from the files themselves.

    Considers iter_N.pth and epoch_N.pth; if the folder has none, those in the folder that `last_checkpoint` names.

    Returns:
        Its path, or None, and a message for each newer checkpoint that cannot be read.
    """
    files = _numbered_files(Path(folder))
    pointer = Path(folder) / 'last_checkpoint'
    if not files and pointer.is_file():  # the checkpoint hook may write to another folder
        files = _numbered_files(Path(pointer.read_text().strip()).parent)
    kinds = {match[1] for match in files.values()}
    # Iterations and epochs cannot be compared, so the modification time decides if both occur.
    age = {path: path.stat().st_mtime if len(kinds) > 1 else int(match[2]) for path, match in files.items()}
    passed_over = []
    for path in sorted(files, key=lambda path: age[path], reverse=True):
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            passed_over.append(str(error))
        else:
            return path, passed_over
    return None, passed_over


def _numbered_files(folder: Path) -> dict[Path, re.Match[str]]:
    return {path: match for path in folder.glob('*.pth') if (match := _NUMBERED.fullmatch(path.name))}


def to_plain(value: Any, where: str = 'checkpoint') -> Any:
    """Copies nested containers, replacing everything that `weights_only` refuses with plain values.

    numpy values become Python values or tensors, and mmengine's history buffers become dicts. Functions are dropped:
    the objects that hold them set their own.

    Raises:
        TypeError: A value cannot be converted; the message gives its place.
    """
    if isinstance(value, np.generic):  # first, as numpy's float64 is also a float
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str, bytes, Tensor, torch.device, torch.dtype)):
        return value
    if isinstance(value, HistoryBuffer):
        history, counts = value.data
        return {_HISTORY: torch.from_numpy(history.copy()), 'counts': torch.from_numpy(counts.copy())}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        items = {key: to_plain(item, f'{where}.{key}') for key, item in value.items() if not callable(item)}
        return OrderedDict(items) if isinstance(value, OrderedDict) else items
    if isinstance(value, (list, tuple, set, frozenset)):
        plain = [to_plain(item, f'{where}[{position}]') for position, item in enumerate(value)]
        return plain if isinstance(value, list) else tuple(plain)
    raise TypeError(f'{where} is a {type(value).__name__}; checkpoints can only hold tensors and plain values')


def restore_histories(message_hub: dict) -> None:
    """Converts the dicts that `to_plain` made from history buffers back to buffers, in place."""
    scalars = message_hub.get('log_scalars', {})
    for name, entry in scalars.items():
        if isinstance(entry, Mapping) and _HISTORY in entry:
            scalars[name] = HistoryBuffer(entry[_HISTORY].cpu().tolist(), entry['counts'].cpu().tolist())


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if hasattr(value, 'shape') else None


def _listed(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return [f'{len(names)} {what}: {", ".join(names[:_SHOWN])}{more}']


def _bound_history_method(owner: Any, name: str) -> Any:
    """Replaces `getattr`, with which mmengine's own checkpoints refer to methods of history buffers."""
    if owner is not HistoryBuffer and not isinstance(owner, HistoryBuffer):
        raise CheckpointError(f'getattr of {owner!r}')
    return getattr(HistoryBuffer, name)


def _safe_globals() -> list:
    """Types in checkpoints of mmengine and timm that only hold values."""
    core = np._core if hasattr(np, '_core') else np.core
    dtypes = [type(np.dtype(kind)) for kind in ('float32', 'float64', 'int64', 'int32', 'uint32', 'bool')]
    return [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        *dtypes,
        (core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
        (core.multiarray._reconstruct, 'numpy._core.multiarray._reconstruct'),
        (core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
        (core.multiarray.scalar, 'numpy._core.multiarray.scalar'),
        (_bound_history_method, 'builtins.getattr'),
        # Published checkpoints contain the options of their training.
        argparse.Namespace,
    ]
