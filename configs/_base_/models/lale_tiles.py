# LALE-S1 for tiles of any size: trained on crops of 512x512 with cross-entropy, tested by a sliding window.
_base_ = './lale.py'
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(loss_decode=dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0)),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
