# As potsdam_mmseg.py, with training tile 2_10 for validation instead of the test tiles, so that a checkpoint can be
# chosen without looking at them.
_base_ = './potsdam_mmseg.py'
train_dataloader = dict(dataset=dict(clean=True))
val_dataloader = dict(dataset=dict(clean=True))
test_dataloader = dict(dataset=dict(clean=True))
