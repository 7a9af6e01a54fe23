# U-Net (arXiv 1505.04597) over an ImageNet ResNet-34, from segmentation_models_pytorch; num_classes comes from the
# data. Other networks of that library change `arch`, `encoder_name` and `network_cfg` (docs/encoders.md). Losses as in
# unet.py.
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
    type='SMPSegmentor',
    data_preprocessor=data_preprocessor,
    arch='unet',
    encoder_name='resnet34',
    encoder_weights='imagenet',
    in_channels=3,
    decoder_dropout=0.3,
    network_cfg=dict(),
    decode_head=dict(
        type='SMPHead',
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
