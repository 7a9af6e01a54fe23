"""Everything that bends to the installed framework, each with its reason.

Nothing of ours is imported here. `apply` is called by `lale_mmseg.register` before any network is imported.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from io import StringIO
from types import ModuleType
from typing import Any, NoReturn

import torch
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner.amp import autocast
from mmengine.utils import digit_version
from mmseg.registry import OPTIM_WRAPPERS
from torch import distributed as torch_dist
from torch import nn

#: Lowest version of each importable module, and the packages that provide it. The originals of OpenMMLab and their
#: maintained continuations (onedl-*) share import names, so the modules are asked, not the installer's list.
REQUIRED = {
    'torch': ('2.6.0', 'torch'),
    'mmengine': ('0.10.0', 'onedl-mmengine (or mmengine)'),
    'mmcv': ('2.1.0', 'onedl-mmcv (or mmcv)'),
    'mmseg': ('1.2.2', 'onedl-mmsegmentation (or mmsegmentation)'),
}
#: The same for modules that only some configs need.
OPTIONAL = {'mmdet': ('3.3.0', 'onedl-mmdetection (or mmdet)')}

#: Marks the stand-in for mmcv's compiled operations.
_PLACEHOLDER = '__lale_mmseg_placeholder__'


def apply() -> None:
    """Checks versions and adapts the framework; safe to call more than once."""
    check_versions()
    # albumentations looks for a newer version over the network at import, which stalls machines without one.
    os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
    if not has_compiled_ops():
        install_ops_placeholder()
    # Two classes may well have two outputs: a softmax over them is the sigmoid of their difference.
    warnings.filterwarnings('ignore', message='For binary segmentation, we suggest using')
    # mmseg prints lines about a data platform of its maintainers at import, whatever the log level.
    with redirect_stdout(StringIO()):
        importlib.import_module('mmseg.datasets')


def check_versions() -> None:
    """Checks the versions of the modules that import.

    Raises:
        ImportError: A module is missing or too old; names the found and the lowest version and the package.
    """
    for name, (lowest, package) in REQUIRED.items():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise ImportError(f'{name} is not installed: lale_mmseg needs {package} >= {lowest}') from None
        _require_version(module, lowest, package)
    for name, (lowest, package) in OPTIONAL.items():
        if find_spec(name) is not None:
            _require_version(importlib.import_module(name), lowest, package)


def _require_version(module: ModuleType, lowest: str, package: str) -> None:
    found = module.__version__.split('+')[0]
    if digit_version(found) < digit_version(lowest):
        raise ImportError(f'{module.__name__} {found} is too old: lale_mmseg needs {package} >= {lowest}')


def has_compiled_ops() -> bool:
    """Whether mmcv was installed with its compiled operations (`mmcv._ext`)."""
    loaded = sys.modules.get('mmcv._ext')
    if loaded is not None:
        return not hasattr(loaded, _PLACEHOLDER)
    return find_spec('mmcv._ext') is not None


class _OpsPlaceholder(ModuleType):
    """Stands in for `mmcv._ext`: has every function, and each raises when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> NoReturn:
            raise RuntimeError(
                f'mmcv was installed without its compiled operations, and this model calls one of them ({name}). '
                'Build mmcv from source with MMCV_WITH_OPS=1 and torch in its build environment, or choose a model '
                'that needs none (all configs of lale_mmseg do without)'
            )

        return missing


def install_ops_placeholder() -> None:
    """Makes `mmcv.ops` importable without compiled operations.

    mmdet.models (for Mask2Former) and parts of mmseg import `mmcv.ops`, which loads `mmcv._ext` at import although
    most of its parts have a pure Python form. Nothing is replaced where the compiled module exists.
    """
    module = _OpsPlaceholder('mmcv._ext')
    # A spec without loader: mmengine and mmcv ask importlib for the loader to see if the operations exist.
    module.__spec__ = ModuleSpec('mmcv._ext', loader=None)
    setattr(module, _PLACEHOLDER, True)
    sys.modules['mmcv._ext'] = module
    # On CUDA this module calls the compiled kernel whenever a GPU is there; its own grid_sample form is the other way.
    attention = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
    setattr(attention, 'IS_CUDA_AVAILABLE', False)  # noqa: B010 (the type checker knows no such name)


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed, so that no time goes into page faults; True where that is possible.

    By default large blocks go back to the system when they are freed, and cost a page fault for each 4 KiB when they
    are taken again, which is much of the time of prediction on a CPU (benchmarks/slide.py with and without
    --glibc-default). torch takes blocks of the same sizes again and again, so the peak of memory hardly rises, but the
    process holds it until it ends.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mmap_max, trim_threshold = -4, -1
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))


def is_cpu_only() -> bool:
    """Whether mmengine would run on the CPU (no GPU or other accelerator is visible)."""
    return get_device() == 'cpu'


def init_cpu_process_group(launcher: str, timeout: float = 300.0) -> None:
    """Joins the process group of a distributed run on CPUs, over gloo.

    mmengine's own initialisation calls `torch.cuda.set_device` unconditionally, which fails without a GPU.

    Args:
        launcher: 'pytorch' (torchrun has set RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), 'slurm' or 'mpi'.
        timeout: Longest wait for another process, in seconds.

    Raises:
        ValueError: Unknown launcher.
    """
    if launcher == 'slurm':
        os.environ['RANK'] = os.environ['SLURM_PROCID']
        os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
        os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')
        if os.environ.get('SLURM_NNODES', '1') != '1' and 'MASTER_ADDR' not in os.environ:
            names = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
            os.environ['MASTER_ADDR'] = subprocess.check_output(names, text=True).split()[0]
    elif launcher == 'mpi':
        os.environ['RANK'] = os.environ['OMPI_COMM_WORLD_RANK']
        os.environ['WORLD_SIZE'] = os.environ['OMPI_COMM_WORLD_SIZE']
        os.environ['LOCAL_RANK'] = os.environ['OMPI_COMM_WORLD_LOCAL_RANK']
    elif launcher != 'pytorch':
        raise ValueError(f"launcher={launcher!r}: must be 'none', 'pytorch', 'slurm' or 'mpi'")
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    if not is_distributed():
        torch_dist.init_process_group(backend='gloo', timeout=timedelta(seconds=timeout))


@OPTIM_WRAPPERS.register_module()
class AnyDeviceAmpOptimWrapper(AmpOptimWrapper):
    """Mixed precision on GPU and CPU; gradients are scaled for float16 only.

    mmengine's wrapper asserts a GPU, although autocast to bfloat16 works on CPUs, and scales gradients for bfloat16,
    too, whose exponent range needs none.

    Args:
        dtype: 'bfloat16' or 'float16'.
        loss_scale: As of `AmpOptimWrapper`; used for float16.
        **kwargs: Arguments of `mmengine.optim.OptimWrapper`, which rejects unknown ones.

    Raises:
        ValueError: Another dtype, or float16 on a CPU.
    """

    def __init__(self, dtype: str = 'bfloat16', loss_scale: str | float | dict = 'dynamic', **kwargs: Any) -> None:
        if dtype not in ('bfloat16', 'float16'):
            raise ValueError(f"dtype={dtype!r}: must be 'bfloat16' or 'float16'")
        if dtype == 'float16' and is_cpu_only():
            raise ValueError("dtype='float16' needs a GPU; on a CPU use 'bfloat16'")
        if dtype == 'float16':
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
        else:
            OptimWrapper.__init__(self, **kwargs)
            self._scale_update_param = None
            self.loss_scaler = torch.amp.GradScaler(enabled=False)
            self.cast_dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and no gradient synchronisation while gradients accumulate."""
        with OptimWrapper.optim_context(self, model), autocast(dtype=self.cast_dtype):
            yield
