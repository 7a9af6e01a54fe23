"""Peak memory of a call, and a setting that makes the C library keep freed memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from lale_mmseg.compat import keep_freed_memory

__all__ = ['keep_freed_memory', 'peak_mebibytes']

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # silences the profiler's reports; only its memory events are used


def peak_mebibytes(function: Callable[[], Any], device: torch.device) -> float:
    """Peak memory in MiB that torch's allocator hands out during a call, beyond what was allocated before it.

    On a CPU, the allocations and frees recorded by the profiler are added up. Unlike the resident set, this does not
    depend on the state of the process. Memory that oneDNN allocates itself is not included.
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
