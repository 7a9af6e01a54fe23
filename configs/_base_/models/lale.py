# LALE-S1 (arXiv 2606.02092). Other sizes change `arch`, other attentions `attn_cfg`; num_classes comes from the data.
data_preprocessor = dict(
    type='ChannelsLastDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size=(256, 256),
    pad_val=0,
    seg_pad_val=255,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(type='LALE', arch='s1', in_channels=3, attn_cfg=dict(type='MultiHeadAttention')),
    decode_head=dict(
        type='LALEHead',
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        channels=128,
        dropout_ratio=0.1,
        num_classes=None,
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=dict(type='SoftDiceLoss', loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
