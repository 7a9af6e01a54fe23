# Attempt 6: LALE-S1 from scratch, on one class of your own images against the rest (docs/few_shot.md).
_base_ = [
    '../_base_/models/lale_building.py',
    '../_base_/datasets/palette_building.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_plateau_60e.py',
]
randomness = dict(seed=42)
