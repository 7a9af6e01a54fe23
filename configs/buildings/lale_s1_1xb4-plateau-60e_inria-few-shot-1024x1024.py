# Attempt 6: LALE-S1 from scratch, on the few-shot roofs of Inria (docs/few_shot.md).
_base_ = [
    '../_base_/models/lale_building.py',
    '../_base_/datasets/inria_few_shot.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_roofs_60e.py',
]
randomness = dict(seed=42)
