"""Peak memory of a call, and a C library that does not give memory back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from lale_mmseg.compat import keep_freed_memory

__all__ = ['keep_freed_memory', 'peak_mebibytes']

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
