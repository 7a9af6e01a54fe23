# ARAS400k (arXiv 2603.09625), real pairs, whole images of 256x256.
# For schedules by epochs; those by iterations need sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True).
# Parquet shards are read fastest with sampler=dict(_delete_=True, type='BlockShuffleSampler').
data_root = 'data/aras400k'
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadPaletteMask'),
    dict(
        type='SeededAlbu',
        transforms=[
            dict(type='HorizontalFlip', p=0.5),
            dict(type='VerticalFlip', p=0.5),
            dict(type='RandomRotate90', p=0.5),
            dict(type='RandomBrightnessContrast', p=0.3),
        ],
    ),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ARAS400kDataset', split='train', parts=dict(real=1.0), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ARAS400kDataset', split='val', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ARAS400kDataset', split='test', pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type='SegmentationMetric')
test_evaluator = dict(type='SegmentationMetric')
