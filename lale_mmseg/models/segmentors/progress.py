"""Lines in the log while one large image is predicted."""

from __future__ import annotations

import time

from mmengine.logging import print_log

#: Seconds between two lines.
INTERVAL = 30.0


class WindowProgress:
    """Logs how far an image is and how long it will still take, if it takes longer than `INTERVAL`.

    Args:
        total: Number of windows.
        name: Of the image.
    """

    def __init__(self, total: int, name: str) -> None:
        self.total = total
        self.name = name
        self._done = 0
        self._start = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        """Counts windows that are done."""
        self._done += count
        now = time.monotonic()
        if now - self._last < INTERVAL or self._done >= self.total:
            return
        self._last = now
        left = round((now - self._start) / self._done * (self.total - self._done))
        print_log(
            f'{self.name}: {self._done} of {self.total} windows, about {left // 60}:{left % 60:02d} min left',
            logger='current',
        )
