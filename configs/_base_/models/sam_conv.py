# Frozen image encoder of Segment Anything (arXiv 2304.02643), ViT-B, and a convolutional decoder over its neck. Other
# sizes change `arch`; num_classes comes from the data. Weights, LoRA and the cache of maps: docs/encoders.md. Losses as
# in unet.py.
data_preprocessor = dict(
    type='ChannelsLastDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size_divisor=32,
    pad_val=0,
    seg_pad_val=255,
    test_cfg=dict(size_divisor=32),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='SAMViT',
        arch='base',
        in_channels=3,
        img_size=1024,
        weights='sa1b',
        out_indices=(),
        out_neck=True,
        frozen=True,
    ),
    decode_head=dict(
        type='SAMConvHead',
        in_channels=256,
        in_index=0,
        decoder_channels=(384, 192, 96, 48),
        decoder_dropout=0.3,
        num_classes=None,
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5, loss_name='loss_bce'),
            dict(type='SoftDiceLoss', class_weight=[0.0, 1.0], loss_weight=0.5),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
