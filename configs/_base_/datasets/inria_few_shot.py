# Few-shot roofs: one 1024x1024 crop of each of 36 Inria tiles of Austin, 24 to train, 6 to validate, 6 held out for one
# test at the end (docs/few_shot.md). 400 draws with replacement an epoch, each augmented anew; nothing is resized.
# `augmentation` is 'light', 'medium', 'heavy', 'extreme' or a list of transforms (docs/augmentation.md).
data_root = 'data/inria_few_shot'
augmentation = 'medium'
train_pipeline = [
    dict(type='SeedDraw'),
    dict(type='LoadBands'),
    dict(type='LoadBinaryLabels'),
    dict(type='SeededAlbu'),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadBands'), dict(type='LoadBinaryLabels'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='ReplacementSampler', samples_per_epoch=400),
    dataset=dict(type='InriaDataset', protocol='few-shot', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='InriaDataset', protocol='few-shot', split='val', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='InriaDataset', protocol='few-shot', split='test', pipeline=test_pipeline, test_mode=True),
)
val_evaluator = [
    dict(type='SegmentationMetric', per_tile=True, protocol='few-shot'),
    dict(type='LogitsLossMetric'),
]
test_evaluator = dict(type='SegmentationMetric', per_tile=True, protocol='few-shot')
