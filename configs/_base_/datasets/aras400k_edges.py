# As aras400k.py, with edge targets for heads that learn the boundaries of classes.
_base_ = './aras400k.py'
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
    dict(type='LaplacianEdges'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
