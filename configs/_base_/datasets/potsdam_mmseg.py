# ISPRS Potsdam under protocol B (mmsegmentation): trained and tested on eroded labels, clutter is a sixth class, mIoU
# over six (docs/protocols.md).
# The published protocol validates on the 14 test tiles (`clean=False`); no best checkpoint is then saved, and the last
# one is tested. `clean=True` validates on training tile 2_10 instead and saves the best checkpoint.
_base_ = './potsdam_geoseg.py'
clean = False
train_dataloader = dict(dataset=dict(protocol='mmseg'))
val_dataloader = dict(dataset=dict(protocol='mmseg'))
test_dataloader = dict(dataset=dict(protocol='mmseg'))
val_evaluator = dict(protocol='mmseg')
test_evaluator = dict(protocol='mmseg')
