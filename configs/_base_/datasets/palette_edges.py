# As palette.py, with edge targets for heads that learn the boundaries of classes.
_base_ = './palette.py'
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadPaletteMask'),
    dict(type='RandomCrop', crop_size=(256, 256)),
    dict(
        type='SeededAlbu',
        transforms=[
            dict(type='HorizontalFlip', p=0.5),
            dict(type='VerticalFlip', p=0.5),
            dict(type='RandomRotate90', p=0.75),
        ],
    ),
    dict(type='LaplacianEdges'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
