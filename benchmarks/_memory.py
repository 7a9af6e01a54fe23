"""Peak memory of a call, and an allocator that does not give memory back."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler's own reports: it is used for memory alone


def peak_mebibytes(function: Callable[[], Any], device: torch.device) -> float:
    """Memory in MiB that torch's allocator hands out at the peak of a call, beyond what is held before it.

    On a CPU the profiler adds up what is allocated and freed, which does not depend on the state of the process, as its
    resident set does; what oneDNN takes for itself is not seen.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            function()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed, so that no time goes into page faults; True where that is possible.

    By default large blocks go back to the system when they are freed and cost page faults when they are taken again:
    a jump of times as soon as a map outgrows the threshold, whose height depends on the machine and not on the network.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mmap_max, trim_threshold = -4, -1
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))
