# Attempt 1: U-Net from scratch, on the few-shot roofs of Inria (docs/few_shot.md). The study's table of results has no
# dropout for this attempt; its text says 0.3 for all five.
_base_ = [
    '../_base_/models/unet.py',
    '../_base_/datasets/inria_few_shot.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_roofs_60e.py',
]
model = dict(backbone=dict(decoder_dropout=0.0))
randomness = dict(seed=42)
