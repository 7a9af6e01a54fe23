"""Maps of a frozen network on disk, so that each image goes through it once."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import ConfigError
from ..files import write_atomic
from .external import import_extra

_DTYPES = (None, 'float32', 'float16', 'bfloat16')
_GIGABYTE = 10**9
#: Share of `max_gb` after which the folder is measured again, as other processes may write there, too.
_MEASURE_SHARE = 0.01
#: Values of each tensor that are compared to find out whether weights have changed: from that many to twice as many.
_SAMPLES = 16


class FeatureCache:
    """A folder with one file for each image: the maps that a frozen network makes of it.

    Files are written whole or not at all, under a name made of all that they depend on, so any number of processes may
    share the folder. A file that is damaged is made again. Once the folder is full, or cannot be written, nothing more
    is stored, which is logged once.

    Args:
        dir: The folder; made by `open`.
        max_gb: Largest size of the folder, in 10 ** 9 bytes.
        dtype: 'float16' or 'bfloat16' to store less; what is computed anew is rounded in the same way, so that results
            do not depend on what is stored. None stores what the network gives.

    Raises:
        ConfigError: A value cannot be used.
    """

    def __init__(self, dir: str | Path, max_gb: float = 20, dtype: str | None = None) -> None:
        if not isinstance(dir, str | Path) or not str(dir):
            raise ConfigError(f'cache_cfg.dir={dir!r}: a folder is due')
        if not isinstance(max_gb, int | float) or isinstance(max_gb, bool) or not max_gb > 0:
            raise ConfigError(f'cache_cfg.max_gb={max_gb!r}: a number above 0 is due')
        if dtype not in _DTYPES:
            raise ConfigError(f'cache_cfg.dtype={dtype!r}: one of {", ".join(map(repr, _DTYPES))} is due')
        self.folder = Path(dir).expanduser()
        self.max_bytes = int(max_gb * _GIGABYTE)
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.hits = 0
        self.misses = 0
        self._storing = True
        self._used = 0
        self._written = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any], field: str = 'cache_cfg') -> FeatureCache:
        """A cache from its config, whose unknown names are errors."""
        known = ('dir', 'max_gb', 'dtype')
        for name in config:
            if name not in known:
                raise ConfigError(f'{field}: unknown field {name!r}; known are {", ".join(known)}')
        if 'dir' not in config:
            raise ConfigError(f'{field}.dir: a folder is due')
        return cls(**config)

    def open(self) -> None:
        """Makes and measures the folder.

        Raises:
            ConfigError: It cannot be made.
        """
        import_extra('safetensors.torch')
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f'cache_cfg.dir={str(self.folder)!r}: {error.strerror}; name another folder') from None
        self._measure()

    def maps(self, images: Tensor, context: str, compute: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """The maps of a batch, from files or computed.

        What is missing is computed one image at a time: in a batch, the last bits depend on the other images.

        Args:
            images: (B, bands, H, W).
            context: All else that the maps depend on.
            compute: The network: (1, bands, H, W) to maps (1, C_i, H_i, W_i).

        Returns:
            Maps (B, C_i, H_i, W_i) in the memory format of the images.
        """
        each = [self._maps_of(image, context, compute) for image in images]
        maps = [torch.stack(of_all).permute(0, 3, 1, 2) for of_all in zip(*each, strict=True)]  # channels-last
        return maps if images.is_contiguous(memory_format=torch.channels_last) else [x.contiguous() for x in maps]

    def _maps_of(self, image: Tensor, context: str, compute: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """Maps (H_i, W_i, C_i) of one image (bands, H, W), on its device."""
        path = self._path(f'{_digest({"image": image})} {context} {self.dtype}')
        maps = self._read(path)
        if maps is not None:
            self.hits += 1
            return [value.to(image.device) for value in maps]
        self.misses += 1
        # The last bits depend on the memory format, too: one for all.
        one = image[None].contiguous(memory_format=torch.channels_last)
        maps = [value[0].permute(1, 2, 0).contiguous() for value in compute(one)]
        dtypes = [value.dtype for value in maps]
        stored = [value.to(self.dtype or value.dtype) for value in maps]
        self._write(path, stored, dtypes)
        return [value.to(dtype) for value, dtype in zip(stored, dtypes, strict=True)]

    def _path(self, key: str) -> Path:
        name = hashlib.blake2b(key.encode(), digest_size=20).hexdigest()
        return self.folder / name[:2] / f'{name}.safetensors'

    def _read(self, path: Path) -> list[Tensor] | None:
        """What a file holds, in the types that the network gave; None if there is none or it is damaged."""
        if not path.is_file():
            return None
        try:
            with import_extra('safetensors').safe_open(path, framework='pt') as file:
                about = file.metadata()
                stored = [file.get_tensor(f'map_{position}') for position in range(len(about['dtypes'].split()))]
            if about['check'] != _checksum(stored):
                raise ValueError('its content has changed')
            return [
                value.to(getattr(torch, dtype)) for value, dtype in zip(stored, about['dtypes'].split(), strict=True)
            ]
        except Exception as error:  # of the library, of the file system, or a name that is not there
            print_log(f'{path}: damaged ({error}); its maps are computed again', logger='current', level=30)
            return None

    def _write(self, path: Path, maps: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> None:
        if not self._storing:
            return
        size = sum(value.nbytes for value in maps)
        if self._used + size > self.max_bytes or self._written > _MEASURE_SHARE * self.max_bytes:
            self._measure()
        if self._used + size > self.max_bytes:
            self._stop(f'it holds {self._used / _GIGABYTE:.3g} GB of max_gb={self.max_bytes / _GIGABYTE:g}')
            return
        on_host = [value.cpu() for value in maps]
        about = dict(check=_checksum(on_host), dtypes=' '.join(str(dtype).removeprefix('torch.') for dtype in dtypes))
        named = {f'map_{position}': value for position, value in enumerate(on_host)}
        try:
            write_atomic(path, import_extra('safetensors.torch').save(named, metadata=about))
        except OSError as error:
            self._stop(str(error))
            return
        self._used += size
        self._written += size

    def _stop(self, reason: str) -> None:
        self._storing = False
        print_log(f'{self.folder}: no more maps are stored: {reason}', logger='current', level=30)

    def _measure(self) -> None:
        self._used = self._written = 0
        for path in self.folder.glob('*/*.safetensors'):
            try:
                self._used += path.stat().st_size
            except OSError:  # removed meanwhile
                continue


class WeightsDigest:
    """The digest of a network's weights, computed when it is asked for and when they have changed since.

    A change is noticed by what torch counts (loading, writing in place, moving, casting), and where torch does not
    count, by some values of each tensor: writing through `.data` to a whole tensor is noticed, to single values of it
    it may not be.
    """

    def __init__(self) -> None:
        self._stamp: tuple | None = None
        self._digest = ''

    def __call__(self, network: nn.Module) -> str:
        """The digest of parameters and buffers."""
        weights = network.state_dict()
        # Loading counts a tensor's version up; moving and casting gives it other memory.
        stamp = (*((value.data_ptr(), value._version, value.dtype) for value in weights.values()), _sampled(weights))
        if stamp != self._stamp:
            self._digest, self._stamp = _digest(weights), stamp
        return self._digest


def _sampled(tensors: Mapping[str, Tensor]) -> bytes:
    """Some values of each tensor, evenly spread; one transfer for all of them."""
    flat = (value.detach().reshape(-1) for value in tensors.values())
    parts = [value[:: max(1, len(value) // _SAMPLES)].double() for value in flat]
    return torch.cat(parts).cpu().numpy().tobytes() if parts else b''


def device_name(device: torch.device) -> str:
    """Model of a GPU, or what a CPU can do: other ones compute other last bits."""
    if device.type == 'cuda':
        return f'cuda {torch.cuda.get_device_name(device)}'
    return f'cpu {torch.backends.cpu.get_cpu_capability()}' if device.type == 'cpu' else device.type


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and values."""
    found = hashlib.blake2b(digest_size=20)
    for name, value in tensors.items():
        found.update(f'{name} {value.dtype} {tuple(value.shape)};'.encode())
        found.update(_bytes(value))
    return found.hexdigest()


def _checksum(maps: Sequence[Tensor]) -> str:
    found = 0
    for value in maps:
        found = zlib.crc32(_bytes(value), found)
    return f'{found:08x}'


def _bytes(value: Tensor) -> Any:
    """The values of a tensor as a buffer."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
