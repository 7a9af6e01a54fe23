# LALE-S1 on the small synthetic set of data_prep/make_toy.py, in ARAS400k's format; tools/quickstart.sh trains it.
_base_ = [
    '../_base_/models/lale.py',
    '../_base_/datasets/aras400k.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_onecycle_400.py',
]
data_root = 'data/toy'
model = dict(
    decode_head=dict(
        num_classes=7,
        loss_decode=dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
    )
)
train_dataloader = dict(batch_size=8, num_workers=2, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=8, num_workers=2)
test_dataloader = dict(batch_size=8, num_workers=2)
