"""Starts processes with torchrun; an interruption or a failed process ends in one line, not in torchrun's traceback."""

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)  # says below what its tables would
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
