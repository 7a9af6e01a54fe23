# LRFormer-T with its head (arXiv 2310.05026). Other sizes change `arch`, and `in_channels` and `channels` of the head;
# num_classes comes from the data.
data_preprocessor = dict(
    type='ChannelsLastDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size=(512, 512),
    pad_val=0,
    seg_pad_val=255,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(type='LRFormer', arch='t', in_channels=3),
    decode_head=dict(
        type='LRHead',
        in_channels=[96, 240, 384],
        in_index=[1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=None,
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
