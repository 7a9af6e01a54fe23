# The light body and edge network: GhostNet x1.0, U-shaped decoder (UED), body-edge separation (BES) and spatial fusion
# (SFM). `spatial_fusion=False` leaves out SFM, `separate_body_edge=False` with it BES, too. Other sizes change `arch`,
# and `in_channels` and `channels` of the head; num_classes comes from the data. Training needs the edge targets of the
# transform LabelEdges.
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
    backbone=dict(type='GhostNet', arch='x1.0', in_channels=3, norm_cfg=dict(type='SyncBN'), out_indices=(1, 2, 3, 4)),
    decode_head=dict(
        type='BodyEdgeHead',
        in_channels=[24, 40, 112, 160],
        in_index=[0, 1, 2, 3],
        channels=24,
        decoder=dict(type='UShapedDecoder'),
        separate_body_edge=True,
        spatial_fusion=True,
        num_classes=None,
        norm_cfg=dict(type='SyncBN'),
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
        loss_body=dict(type='BoundaryRelaxationLoss', loss_weight=1.0),
        loss_edge=dict(type='BinaryEdgeLoss', loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
