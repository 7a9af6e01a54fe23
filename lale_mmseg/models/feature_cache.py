"""Feature maps of a frozen network on disk, so that each image passes through it once."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ConfigError
from ..files import write_atomic

_GIGABYTE = 10**9
_DTYPES = {None: None, 'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
#: The folder is measured again after own writes of this share of `max_gb`, as other processes may write there, too.
_MEASURE_SHARE = 0.01


class FeatureCache:
    """A folder with one file per image, which contains the feature maps of a frozen network.

    Files are written atomically under a name derived from everything that the feature maps depend on, so any number of
    processes may share the folder. A damaged file is computed again. When the folder is full or not writable, nothing
    more is stored and one warning is logged.

    Args:
        dir: The folder; created by `open`.
        max_gb: Maximum size of the folder in 10 ** 9 bytes.
        dtype: 'float16' or 'bfloat16' to save space. Newly computed feature maps are rounded in the same way, so that
            results do not depend on what is stored. None keeps the network's output type.

    Raises:
        ConfigError: `max_gb` or `dtype` is invalid.
    """

    def __init__(self, dir: str | Path, max_gb: float = 20, dtype: str | None = None) -> None:
        if not max_gb > 0:
            raise ConfigError(f'cache_cfg.max_gb={max_gb}: expected a number above 0')
        if dtype not in _DTYPES:
            raise ConfigError(f'cache_cfg.dtype={dtype!r}: expected one of {", ".join(map(repr, _DTYPES))}')
        self.folder = Path(dir).expanduser()
        self.max_bytes = int(max_gb * _GIGABYTE)
        self.dtype = _DTYPES[dtype]
        self.hits = 0
        self.misses = 0
        self._storing = True
        self._used = 0
        self._written = 0

    def open(self) -> None:
        """Creates and measures the folder.

        Raises:
            ConfigError: It cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f'cache_cfg.dir={str(self.folder)!r}: {error.strerror}; choose another folder') from None
        self._measure()

    def lookup(self, images: Tensor, context: str, compute: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """Returns the feature maps of a batch, from files or computed.

        Missing ones are computed one image at a time: in a batch, the last bits depend on the other images.

        Args:
            images: (B, bands, H, W).
            context: Everything else that the feature maps depend on.
            compute: The network: (1, bands, H, W) to feature maps (1, C_i, H_i, W_i).

        Returns:
            Feature maps (B, C_i, H_i, W_i) in the memory format of the images.
        """
        each = [self._lookup_one(image, context, compute) for image in images]
        maps = [torch.stack(of_all).permute(0, 3, 1, 2) for of_all in zip(*each, strict=True)]  # channels-last
        return maps if images.is_contiguous(memory_format=torch.channels_last) else [x.contiguous() for x in maps]

    def _lookup_one(self, image: Tensor, context: str, compute: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """Feature maps (H_i, W_i, C_i) of one image (bands, H, W), on its device."""
        key = f'{digest({"image": image})} {context} {self.dtype}'
        name = hashlib.blake2b(key.encode(), digest_size=20).hexdigest()
        path = self.folder / name[:2] / f'{name}.safetensors'
        maps = self._read(path)
        if maps is not None:
            self.hits += 1
            return [value.to(image.device) for value in maps]
        self.misses += 1
        # The last bits also depend on the memory format, so all images are computed in the same one.
        one = image[None].contiguous(memory_format=torch.channels_last)
        maps = [value[0].permute(1, 2, 0).contiguous() for value in compute(one)]  # (H_i, W_i, C_i)
        dtypes = [value.dtype for value in maps]
        stored = [value.to(self.dtype or value.dtype) for value in maps]
        if self._storing:
            self._write(path, [value.cpu() for value in stored], dtypes)
        return [value.to(dtype) for value, dtype in zip(stored, dtypes, strict=True)]

    def _read(self, path: Path) -> list[Tensor] | None:
        """Feature maps of a file in the network's output types; None if it is missing or damaged."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework='pt') as file:
                about = file.metadata()
                dtypes = [getattr(torch, name) for name in about['dtypes'].split()]
                stored = [file.get_tensor(f'map_{position}') for position in range(len(dtypes))]
            if about['check'] != _checksum(stored):
                raise ValueError('checksum mismatch')
            return [value.to(dtype) for value, dtype in zip(stored, dtypes, strict=True)]
        except Exception as error:  # of the library or the file system, or a missing entry
            print_log(f'{path}: damaged ({error}); computing its feature maps again', logger='current', level=30)
            return None

    def _write(self, path: Path, maps: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> None:
        size = sum(value.nbytes for value in maps)
        if self._used + size > self.max_bytes or self._written > _MEASURE_SHARE * self.max_bytes:
            self._measure()
        if self._used + size > self.max_bytes:
            self._stop(f'it contains {self._used / _GIGABYTE:.3g} GB of max_gb={self.max_bytes / _GIGABYTE:g}')
            return
        about = dict(check=_checksum(maps), dtypes=' '.join(str(dtype).removeprefix('torch.') for dtype in dtypes))
        named = {f'map_{position}': value for position, value in enumerate(maps)}
        try:
            write_atomic(path, save(named, metadata=about))
        except OSError as error:
            self._stop(str(error))
            return
        self._used += size
        self._written += size

    def _stop(self, reason: str) -> None:
        self._storing = False
        print_log(f'{self.folder}: storing no more feature maps: {reason}', logger='current', level=30)

    def _measure(self) -> None:
        self._used = self._written = 0
        for path in self.folder.glob('*/*.safetensors'):
            try:
                self._used += path.stat().st_size
            except OSError:  # removed in the meantime
                continue


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, dtypes, shapes and values."""
    found = hashlib.blake2b(digest_size=20)
    for name, value in tensors.items():
        found.update(f'{name} {value.dtype} {tuple(value.shape)};'.encode())
        found.update(_bytes(value))
    return found.hexdigest()


def device_name(device: torch.device) -> str:
    """Model of a GPU, or instruction set of a CPU: others compute other last bits."""
    if device.type == 'cuda':
        return f'cuda {torch.cuda.get_device_name(device)}'
    return f'cpu {torch.backends.cpu.get_cpu_capability()}' if device.type == 'cpu' else device.type


def _checksum(maps: Sequence[Tensor]) -> str:
    found = 0
    for value in maps:
        found = zlib.crc32(_bytes(value), found)
    return f'{found:08x}'


def _bytes(value: Tensor) -> Any:
    """The values of a tensor as a buffer."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
