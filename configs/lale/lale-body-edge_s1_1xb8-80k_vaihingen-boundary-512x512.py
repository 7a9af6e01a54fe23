# LALE-S1 with the body/edge head on ISPRS Vaihingen under protocol D; `clean=True` validates on a training tile.
_base_ = [
    '../_base_/models/body_edge_lale.py',
    '../_base_/datasets/vaihingen_boundary.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
model = dict(
    data_preprocessor=dict(mean=[119.75, 82.42, 81.17], std=[56.1, 40.75, 38.58]),
    decode_head=dict(loss_body=dict(class_weight='data')),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
