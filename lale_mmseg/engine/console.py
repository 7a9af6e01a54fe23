"""What a run prints: the log without its long parts, which are in the log file alone."""

from __future__ import annotations

import copy
import logging
import re

#: Starts of messages that fill pages or that a user cannot act on.
_FILE_ONLY = (
    '\n------------------------------------------------------------\nSystem environment',
    'Config:\n',
    'Hooks will be executed in the following order',
    'Distributed training is not used, all SyncBatchNorm',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)
#: The line of mmengine's LoggerHook at the end of a validation or test.
_RESULTS = re.compile(r'\((?:val|test)\) .*\[ *(\d+)/\1\] ')
#: Scores that the table of SegmentationMetric has.
_IN_TABLE = re.compile(
    r'(?:\S+/)?(?:mIoU|mF1|mP|mR|mBF1|mBIoU|OA|kappa|mean_tile_\w+|worst_tile_\w+|(?:IoU|F1|P|R|BF1|BIoU)/.+|data_time|time)'
)


class ConsoleFilter(logging.Filter):
    """Passes what belongs on the screen; each score is printed once, in the table of `SegmentationMetric`.

    Args:
        handler: Handler of the screen, which the filter is added to.
        has_table: Whether `SegmentationMetric` evaluates, so that scores are not shown again below its table.
    """

    def __init__(self, handler: logging.Handler, has_table: bool) -> None:
        super().__init__()
        self.handler = handler
        self.has_table = has_table

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is printed as it is; of results it prints what no table has."""
        message = record.getMessage()
        if message.startswith(_FILE_ONLY):
            return False
        if not self.has_table or not _RESULTS.search(message):
            return True
        head, *entries = re.split(r' {2,}', message.strip())
        rest = [entry for entry in entries if not _IN_TABLE.fullmatch(entry.split(': ')[0])]
        if rest:
            shown = copy.copy(record)
            shown.msg, shown.args = '  '.join([head, *rest]), ()
            self.handler.emit(shown)
        return False
