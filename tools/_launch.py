"""Starts processes with torchrun; an interruption or a failed process ends in one line, not in torchrun's traceback."""

import logging
import os
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    logging.disable(logging.ERROR)  # what torchrun has to say is said below
    os.environ.setdefault('MKL_NUM_THREADS', '1')  # mmengine's choice, without a warning from each process
    try:
        main()
    except SignalException as error:
        print(f'interrupted ({error.sigval.name})', file=sys.stderr)
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(
            f'error: process {rank} ended first, with status {failure.exitcode}; its messages are above',
            file=sys.stderr,
        )
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
