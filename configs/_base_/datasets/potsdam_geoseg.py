# ISPRS Potsdam under protocol A (GeoSeg, UNetFormer): trained on full labels of 22 tiles, validated on 2_10, tested on
# the eroded labels of 14; six classes, mIoU and mF1 over five, OA over six (docs/protocols.md).
# Training crops come from windows; validation and test read whole tiles, so test_cfg of the model must slide.
data_root = 'data/potsdam'
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadLabels'),
    dict(type='RandomResize', scale=crop_size, ratio_range=(0.5, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(
        type='SeededAlbu',
        transforms=[
            dict(type='HorizontalFlip', p=0.5),
            dict(type='VerticalFlip', p=0.5),
            dict(type='RandomRotate90', p=0.75),
        ],
    ),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadBands'), dict(type='LoadLabels'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ISPRSProtocolDataset',
        benchmark='potsdam',
        protocol='geoseg',
        split='train',
        pipeline=train_pipeline,
    ),
)
# Tiles of up to 36 million pixels: one at a time.
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ISPRSProtocolDataset',
        benchmark='potsdam',
        protocol='geoseg',
        split='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ISPRSProtocolDataset',
        benchmark='potsdam',
        protocol='geoseg',
        split='test',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='SegmentationMetric', protocol='geoseg')
test_evaluator = dict(type='SegmentationMetric', protocol='geoseg')
