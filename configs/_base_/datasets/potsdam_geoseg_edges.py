# As potsdam_geoseg.py, with edge targets for heads that learn the boundaries of classes.
_base_ = './potsdam_geoseg.py'
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadLabels'),
    dict(type='RandomResize', scale=(512, 512), ratio_range=(0.5, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
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
