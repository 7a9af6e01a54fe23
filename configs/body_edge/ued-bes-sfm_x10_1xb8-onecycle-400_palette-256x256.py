# The light body/edge network (UED, BES and SFM) on your own images in 400 iterations (docs/own_data.md).
_base_ = [
    '../_base_/models/body_edge.py',
    '../_base_/datasets/palette.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_onecycle_400.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
train_pipeline = [*_base_.train_pipeline[:-1], dict(type='LabelEdges'), dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
