# Inria Aerial Image Labeling, full protocol (docs/inria.md): 155 tiles to train on, in windows of 512x512; tiles 1 to 5
# of each city, whole, to validate on. The labels of the benchmark's test tiles are hidden: tools/test.py scores the
# validation tiles, tools/analysis/inria_submission.py predicts the hidden cities.
# Validation and test read whole tiles of 5000x5000: test_cfg of the model must slide.
data_root = 'data/inria'
crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadBinaryLabels'),
    dict(type='RandomResize', scale=crop_size, ratio_range=(0.5, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='SeededAlbu', transforms=[dict(type='D4', p=1.0), dict(type='RandomBrightnessContrast', p=0.3)]),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadBands'), dict(type='LoadBinaryLabels'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='InriaDataset', protocol='full', split='train', pipeline=train_pipeline),
)
# Tiles of 25 million pixels: one at a time.
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='InriaDataset', protocol='full', split='val', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='InriaDataset', protocol='full', split='val', pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type='SegmentationMetric', per_tile=True, protocol='full')
test_evaluator = dict(type='SegmentationMetric', per_tile=True, protocol='full')
