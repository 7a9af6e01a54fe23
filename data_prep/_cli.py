"""What the scripts share at their command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lale_mmseg.errors import InputError


def run_main(main: Callable[[], int]) -> int:
    """Runs a script: what the user got wrong becomes one line on stderr and exit status 2."""
    try:
        return main()
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; the same command continues where this one stopped', file=sys.stderr)
        return 130
