# U-Net (arXiv 1505.04597) of five levels, from random weights; num_classes comes from the data. The losses are for one
# class against the rest: half cross-entropy, half Dice of that class.
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
        type='DropoutUNet',
        in_channels=3,
        base_channels=32,
        num_stages=5,
        norm_cfg=dict(type='SyncBN'),
        decoder_dropout=0.3,
    ),
    decode_head=dict(
        type='FCNHead',  # the classifier alone
        in_channels=32,
        in_index=4,
        channels=32,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        # torch's own start: from mmsegmentation's small weights a rare class drives all of them to one sign at once.
        init_cfg=None,
        num_classes=None,
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5, loss_name='loss_bce'),
            dict(type='SoftDiceLoss', class_weight=[0.0, 1.0], loss_weight=0.5),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
