# Attempt 9: the light body/edge network (UED, BES and SFM) from scratch, on few-shot roofs of Inria; see
# docs/few_shot.md.
_base_ = [
    '../_base_/models/body_edge_building.py',
    '../_base_/datasets/inria_few_shot_edges.py',
    '../_base_/augmentations/medium.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_plateau_60e.py',
]
randomness = dict(seed=42)
