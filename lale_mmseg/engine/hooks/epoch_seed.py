"""Makes the random draws of a network the same after a resume."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds torch, on the CPU and all GPUs, at the start of each training epoch from seed, epoch and rank.

    mmengine seeds once, when a run starts or is resumed, so the dropout of a resumed run would differ from that of a
    straight one from its first step on. The states of `random` and NumPy, which transforms draw from, are not changed:
    `SeedDraw` is for them. Runs by iterations are not seeded anew.
    """

    # Before other hooks of the epoch, and before the data loader draws the seeds of its workers.
    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            torch.manual_seed(epoch_seed(int(runner.seed), runner.epoch, get_rank()))


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """The 64-bit seed of an epoch, counted from 0, on a rank."""
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0])
