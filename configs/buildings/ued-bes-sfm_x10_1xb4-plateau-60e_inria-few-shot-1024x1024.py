# Attempt 9: the light body/edge network (UED, BES and SFM) from scratch, on the few-shot roofs of Inria
# (docs/few_shot.md).
_base_ = [
    '../_base_/models/body_edge_building.py',
    '../_base_/datasets/inria_few_shot.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_roofs_60e.py',
]
randomness = dict(seed=42)
train_pipeline = [*_base_.train_pipeline[:-1], dict(type='LabelEdges'), dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
