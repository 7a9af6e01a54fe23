# ISPRS Vaihingen (infrared, red, green) under protocol D (light boundary network): 28 tiles, tested on the full labels
# of 11, 15, 28, 30 and 34; clutter is trained and not scored (docs/protocols.md).
# The publication names no validation tiles; here they are the test tiles (`clean=False`); no best checkpoint is then
# saved, and the last one is tested. `clean=True` validates on training tile 7 instead and saves the best checkpoint.
_base_ = './potsdam_geoseg.py'
data_root = 'data/vaihingen'
clean = False
# The published augmentation: flips, scales and blur; with edge targets for heads that learn the boundaries of classes.
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadLabels'),
    dict(type='RandomResize', scale=(512, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=1.0),
    dict(
        type='SeededAlbu',
        transforms=[
            dict(type='HorizontalFlip', p=0.5),
            dict(type='VerticalFlip', p=0.5),
            dict(type='GaussianBlur', sigma_limit=(0.1, 1.0), p=0.5),
        ],
    ),
    dict(type='LabelEdges'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(benchmark='vaihingen', protocol='boundary', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(benchmark='vaihingen', protocol='boundary'))
test_dataloader = dict(dataset=dict(benchmark='vaihingen', protocol='boundary'))
val_evaluator = dict(protocol='boundary')
test_evaluator = dict(protocol='boundary')
