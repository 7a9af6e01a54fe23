# Your own images: data_root holds images/, masks/, classes.csv and train.txt, val.txt, test.txt
# (docs/own_data.md). For schedules by iterations; schedules by epochs need
# sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True) for training.
data_root = 'data/palette'
crop_size = (256, 256)
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadPaletteMask'),
    dict(type='RandomCrop', crop_size=crop_size),
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
test_pipeline = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='PaletteDataset', split='train', pipeline=train_pipeline),
)
# Images of any size: one at a time.
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='val', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='test', pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type='SegmentationMetric')
test_evaluator = dict(type='SegmentationMetric')
