# ISPRS Potsdam under protocol C (RSP, LeMeViT): trained and tested on full labels, clutter ignored, five outputs
# (docs/protocols.md).
# Published so, validation is on the 14 test tiles. A config that keeps `save_best` chooses its checkpoint on them; the
# configs here test the last one, and potsdam_rsp_clean.py validates on a training tile.
_base_ = './potsdam_geoseg.py'
train_dataloader = dict(dataset=dict(protocol='rsp'))
val_dataloader = dict(dataset=dict(protocol='rsp'))
test_dataloader = dict(dataset=dict(protocol='rsp'))
val_evaluator = dict(protocol='rsp')
test_evaluator = dict(protocol='rsp')
