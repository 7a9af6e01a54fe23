# ISPRS Vaihingen (infrared, red, green) under protocol B (mmsegmentation): eroded labels, mIoU over six classes
# (docs/protocols.md).
# The published protocol validates on the 17 test tiles (`clean=False`); no best checkpoint is then saved, and the last
# one is tested. `clean=True` validates on training tile 30 instead and saves the best checkpoint.
_base_ = './potsdam_mmseg.py'
data_root = 'data/vaihingen'
train_dataloader = dict(dataset=dict(benchmark='vaihingen'))
val_dataloader = dict(dataset=dict(benchmark='vaihingen'))
test_dataloader = dict(dataset=dict(benchmark='vaihingen'))
