# ISPRS Vaihingen (infrared, red, green) under protocol B (mmsegmentation): eroded labels, mIoU over six classes
# (docs/protocols.md).
# Published so, validation is on the 17 test tiles. A config that keeps `save_best` chooses its checkpoint on them; the
# configs here test the last one, and vaihingen_mmseg_clean.py validates on a training tile.
_base_ = './potsdam_mmseg.py'
data_root = 'data/vaihingen'
train_dataloader = dict(dataset=dict(city='vaihingen'))
val_dataloader = dict(dataset=dict(city='vaihingen'))
test_dataloader = dict(dataset=dict(city='vaihingen'))
