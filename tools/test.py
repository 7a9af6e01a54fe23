"""Tests a checkpoint: `python tools/test.py CONFIG CHECKPOINT`; on several processes `bash tools/dist_test.sh`."""

from lale_mmseg.cli.test import command

if __name__ == '__main__':
    command()
