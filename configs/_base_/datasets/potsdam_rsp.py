# ISPRS Potsdam under protocol C (RSP, LeMeViT): trained and tested on full labels, clutter ignored, five outputs
# (docs/protocols.md).
# The published protocol validates on the 14 test tiles (`clean=False`); no best checkpoint is then saved, and the last
# one is tested. `clean=True` validates on training tile 2_10 instead and saves the best checkpoint.
_base_ = './potsdam_geoseg.py'
clean = False
train_dataloader = dict(dataset=dict(protocol='rsp'))
val_dataloader = dict(dataset=dict(protocol='rsp'))
test_dataloader = dict(dataset=dict(protocol='rsp'))
val_evaluator = dict(protocol='rsp')
test_evaluator = dict(protocol='rsp')
