# ISPRS Potsdam under protocol B (mmsegmentation): trained and tested on eroded labels, clutter is a sixth class, mIoU
# over six (docs/protocols.md).
# Published so, validation is on the 14 test tiles. A config that keeps `save_best` chooses its checkpoint on them; the
# configs here test the last one, and potsdam_mmseg_clean.py validates on a training tile.
_base_ = './potsdam_geoseg.py'
train_dataloader = dict(dataset=dict(protocol='mmseg'))
val_dataloader = dict(dataset=dict(protocol='mmseg'))
test_dataloader = dict(dataset=dict(protocol='mmseg'))
val_evaluator = dict(protocol='mmseg')
test_evaluator = dict(protocol='mmseg')
