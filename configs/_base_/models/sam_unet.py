# Frozen image encoder of Segment Anything, ViT-B, and a U-Net decoder with skips from four of its blocks. Other sizes
# change `arch` and `out_indices`, and `in_channels` of the head.
_base_ = './sam_conv.py'
model = dict(
    backbone=dict(out_indices=(2, 5, 8, 11), out_neck=False),
    decode_head=dict(
        _delete_=True,
        type='SAMUNetHead',
        in_channels=(768, 768, 768, 768),
        in_index=(0, 1, 2, 3),
        decoder_channels=(80, 160, 320, 640),
        channels=40,
        decoder_dropout=0.3,
        num_classes=None,
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5, loss_name='loss_bce'),
            dict(type='SoftDiceLoss', class_weight=[0.0, 1.0], loss_weight=0.5),
        ],
    ),
)
