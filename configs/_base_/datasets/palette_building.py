# Your own images and masks (docs/own_data.md) under the few-shot recipe: one class against everything else, 400
# draws with replacement an epoch, each cropped and augmented anew. `binary_class` names the class; `augmentation` is
# 'light', 'medium', 'heavy', 'extreme' or a list of transforms (docs/augmentation.md).
data_root = 'data/palette'
binary_class = 'building'
augmentation = 'medium'
crop_size = (256, 256)
train_pipeline = [
    dict(type='SeedDraw'),
    dict(type='LoadBands'),
    dict(type='LoadPaletteMask'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='SeededAlbu'),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='ReplacementSampler', samples_per_epoch=400),
    dataset=dict(type='PaletteDataset', split='train', pipeline=train_pipeline),
)
# Images of any size: one at a time.
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='val', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='test', pipeline=test_pipeline, test_mode=True),
)
val_evaluator = [
    dict(type='SegmentationMetric', per_tile=True, score_classes=[1]),
    dict(type='LogitsLossMetric'),
]
test_evaluator = dict(type='SegmentationMetric', per_tile=True, score_classes=[1])
