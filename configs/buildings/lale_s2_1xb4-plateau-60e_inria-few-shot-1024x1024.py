# Attempt 7: LALE-S2 from scratch, on few-shot roofs of Inria; see docs/few_shot.md.
_base_ = [
    '../_base_/models/lale_building.py',
    '../_base_/datasets/inria_few_shot.py',
    '../_base_/augmentations/medium.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_plateau_60e.py',
]
model = dict(backbone=dict(arch='s2'))
randomness = dict(seed=42)
