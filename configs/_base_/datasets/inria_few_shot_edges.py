# As inria_few_shot.py, with edge targets for heads that learn the boundaries of classes.
_base_ = './inria_few_shot.py'
train_pipeline = [*_base_.train_pipeline[:-1], dict(type='LaplacianEdges'), dict(type='PackSegInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
