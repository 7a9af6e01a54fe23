# The light body/edge network (UED, BES and SFM) on Inria Aerial Image Labeling, full protocol (docs/inria.md).
_base_ = [
    '../_base_/models/body_edge.py',
    '../_base_/datasets/inria_full.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
model = dict(
    decode_head=dict(loss_body=dict(class_weight='data')),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
train_pipeline = [*_base_.train_pipeline[:-1], dict(type='LabelEdges'), dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
