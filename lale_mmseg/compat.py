"""All adaptations to the installed framework, each with its reason.

This module imports nothing else of the package. `lale_mmseg.register` calls `apply` before any network is imported.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from io import StringIO
from types import ModuleType
from typing import Any, NoReturn

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner.amp import autocast
from mmengine.utils import digit_version
from mmseg.registry import OPTIM_WRAPPERS
from torch import distributed as torch_dist
from torch import nn

#: Lowest version of each module, and the packages that provide it. OpenMMLab's packages and their maintained
#: continuations (onedl-*) share import names, so the imported modules are checked, not the installed packages.
REQUIRED = {
    'torch': ('2.6.0', 'torch'),
    'mmengine': ('0.10.0', 'onedl-mmengine (or mmengine)'),
    'mmcv': ('2.1.0', 'onedl-mmcv (or mmcv)'),
    'mmseg': ('1.2.2', 'onedl-mmsegmentation (or mmsegmentation)'),
}
#: The same for modules that only some configs need.
OPTIONAL = {'mmdet': ('3.3.0', 'onedl-mmdetection (or mmdet)')}

#: Backbones of mmsegmentation that fail on images whose sides are not divisible by this, and do not pad.
SIZE_DIVISORS = {'DDRNet': 8, 'PIDNet': 8, 'UNet': 16}

#: Attribute of the placeholder for mmcv's compiled operations.
_PLACEHOLDER = '__lale_mmseg_placeholder__'


def apply() -> None:
    """Checks versions and adapts the framework; safe to call more than once."""
    check_versions()
    # At import albumentations checks for updates over the network, which stalls machines without one.
    os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
    if not has_compiled_ops():
        install_ops_placeholder()
    find_packaged_configs()
    # mmseg warns about two outputs for two classes, which is fine: their softmax is the sigmoid of their difference.
    warnings.filterwarnings('ignore', message='For binary segmentation, we suggest using')
    # At import mmseg prints an advertisement, whatever the log level.
    with redirect_stdout(StringIO()):
        importlib.import_module('mmseg.datasets')
    mend_class_weights()


def check_versions() -> None:
    """Checks the versions of the imported modules.

    Raises:
        ImportError: A module is missing or too old; the message has the found and the lowest version and the package.
    """
    for name, (lowest, package) in {**REQUIRED, **OPTIONAL}.items():
        if find_spec(name) is None:
            if name in OPTIONAL:
                continue
            raise ImportError(f'{name} is not installed: lale_mmseg needs {package} >= {lowest}')
        found = importlib.import_module(name).__version__.split('+')[0]
        if digit_version(found) < digit_version(lowest):
            raise ImportError(f'{name} {found} is too old: lale_mmseg needs {package} >= {lowest}')


def has_compiled_ops() -> bool:
    """Whether mmcv was installed with its compiled operations (`mmcv._ext`)."""
    loaded = sys.modules.get('mmcv._ext')
    if loaded is not None:
        return not hasattr(loaded, _PLACEHOLDER)
    return find_spec('mmcv._ext') is not None


class _OpsPlaceholder(ModuleType):
    """Placeholder for `mmcv._ext`: has every function, and each raises an error when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> NoReturn:
            raise RuntimeError(
                f'mmcv was installed without its compiled operations, and this model calls one of them ({name}). '
                'Build mmcv from source with MMCV_WITH_OPS=1 and torch in its build environment, or use a model '
                'without them (no config of lale_mmseg needs them)'
            )

        return missing


def install_ops_placeholder() -> None:
    """Makes `mmcv.ops` importable without compiled operations.

    mmdet.models (for Mask2Former) and parts of mmseg import `mmcv.ops`, which loads `mmcv._ext` at import although
    most of its parts also exist in pure Python. Nothing is replaced if the compiled module exists.
    """
    module = _OpsPlaceholder('mmcv._ext')
    # A spec without a loader: mmengine and mmcv look for the loader to find out whether the operations exist.
    module.__spec__ = ModuleSpec('mmcv._ext', loader=None)
    setattr(module, _PLACEHOLDER, True)
    sys.modules['mmcv._ext'] = module
    # This module calls the compiled kernel whenever a GPU exists; without this flag it uses its grid_sample version.
    attention = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
    setattr(attention, 'IS_CUDA_AVAILABLE', False)  # noqa: B010 (the type checker knows no such name)


def find_packaged_configs() -> None:
    """Makes the prefixes `mmseg::` and `lale_mmseg::` work in `_base_` and `Config.fromfile`.

    mmengine looks up the folder `.mim` of a prefix in a table of distributions. For `mmseg` the table has
    mmsegmentation, which the maintained continuation is not called, and other packages it refuses. A name that is no
    distribution is imported instead, so the table gets modules: then the configs are those of the imported package,
    however it was installed.
    """
    MODULE2PACKAGE.update(mmseg='mmseg', lale_mmseg='lale_mmseg.register')
    if not hasattr(Config._get_cfg_path, _PLACEHOLDER):
        Config._get_cfg_path = staticmethod(_without_own_scope(Config._get_cfg_path))


def packaged_config(name: str) -> str:
    """Path of a config of an installed package, such as `lale_mmseg::lale/NAME.py`."""
    return Config._get_cfg_path(name, '')[0]


def _without_own_scope(get_cfg_path: Callable[[str, str], tuple[str, str | None]]) -> Callable:
    """Keeps mmengine from marking parts of our configs as parts of a registry `lale_mmseg`: they are in mmseg's."""

    def found(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = get_cfg_path(cfg_path, filename)
        return path, None if scope == 'lale_mmseg' else scope

    setattr(found, _PLACEHOLDER, True)
    return found


def mend_class_weights() -> None:
    """Makes mmseg's cross-entropy accept class weights together with `avg_non_ignore=True`.

    With class weights, mmseg divides by the sum of the weights of all labelled pixels, as torch does: sum(w[t] * ce) /
    sum(w[t]) over the pixels that are not ignored. With `avg_non_ignore=True` it then indexes these weights with a mask
    of all pixels, to leave out the ignored ones once more, which is an IndexError. The flag is therefore dropped where
    there are weights, and changes nothing there.
    """
    module = importlib.import_module('mmseg.models.losses.cross_entropy_loss')
    original = module.cross_entropy
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def cross_entropy(*args: Any, class_weight: Any = None, avg_non_ignore: bool = False, **kwargs: Any) -> Any:
        flag = avg_non_ignore and class_weight is None
        return original(*args, class_weight=class_weight, avg_non_ignore=flag, **kwargs)

    setattr(module, 'cross_entropy', cross_entropy)  # noqa: B010


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory, which saves page faults; returns False on systems without glibc.

    By default glibc returns large freed blocks to the system, and taking them again costs a page fault for each 4 KiB:
    much of the time of prediction on a CPU (benchmarks/slide.py with and without --glibc-default). torch reuses blocks
    of the same sizes, so peak memory hardly rises, but the process holds it until it ends.
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
        launcher: 'pytorch' (torchrun sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT), 'slurm' or 'mpi'.
        timeout: Longest wait for another process, in seconds.
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
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    if not is_distributed():
        torch_dist.init_process_group(backend='gloo', timeout=timedelta(seconds=timeout))


@OPTIM_WRAPPERS.register_module()
class AnyDeviceAmpOptimWrapper(AmpOptimWrapper):
    """Mixed precision on GPU and CPU; gradients are scaled for float16 only.

    mmengine's wrapper requires a GPU, although autocast to bfloat16 works on CPUs, and also scales gradients for
    bfloat16, whose exponent range makes that unnecessary.

    Args:
        dtype: 'bfloat16', or 'float16' on a GPU.
        loss_scale: See `mmengine.optim.AmpOptimWrapper`; used for float16.
        **kwargs: Arguments of `mmengine.optim.OptimWrapper`, which rejects unknown ones.

    Raises:
        ValueError: `dtype` is 'float16' on a CPU.
    """

    def __init__(self, dtype: str = 'bfloat16', loss_scale: str | float | dict = 'dynamic', **kwargs: Any) -> None:
        if dtype == 'bfloat16':
            OptimWrapper.__init__(self, **kwargs)
            self._scale_update_param = None
            self.loss_scaler = torch.amp.GradScaler(enabled=False)
            self.cast_dtype = torch.bfloat16
        elif is_cpu_only():
            raise ValueError(f"dtype={dtype!r} needs a GPU; on a CPU use 'bfloat16'")
        else:
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocasts, and skips gradient synchronisation while gradients accumulate."""
        with OptimWrapper.optim_context(self, model), autocast(dtype=self.cast_dtype):
            yield
