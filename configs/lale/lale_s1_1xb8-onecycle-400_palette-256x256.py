# LALE-S1 on your own images in 400 iterations (docs/own_data.md).
_base_ = [
    '../_base_/models/lale.py',
    '../_base_/datasets/palette.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_onecycle_400.py',
]
model = dict(
    decode_head=dict(loss_decode=dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0))
)
