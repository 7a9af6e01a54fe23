"""Predicts images with a checkpoint alone: `python tools/predict.py CHECKPOINT IMAGES...`."""

from lale_mmseg.cli.predict import command

if __name__ == '__main__':
    command()
