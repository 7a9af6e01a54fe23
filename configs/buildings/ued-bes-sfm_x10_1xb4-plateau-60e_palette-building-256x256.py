# Attempt 9: the light body/edge network (UED, BES and SFM) from scratch, on one class of your own images against the
# rest; see docs/few_shot.md.
_base_ = [
    '../_base_/models/body_edge_building.py',
    '../_base_/datasets/palette_building_edges.py',
    '../_base_/augmentations/medium.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_plateau_60e.py',
]
randomness = dict(seed=42)
