"""Trains a config: `python tools/train.py CONFIG`; on several GPUs or processes `bash tools/dist_train.sh CONFIG N`."""

from lale_mmseg.cli.train import command

if __name__ == '__main__':
    command()
