# ISPRS Vaihingen (infrared, red, green) under protocol C (RSP, LeMeViT): full labels, clutter ignored, five outputs
# (docs/protocols.md).
# The published protocol validates on the 17 test tiles (`clean=False`); no best checkpoint is then saved, and the last
# one is tested. `clean=True` validates on training tile 30 instead and saves the best checkpoint.
_base_ = './potsdam_rsp.py'
data_root = 'data/vaihingen'
train_dataloader = dict(dataset=dict(benchmark='vaihingen'))
val_dataloader = dict(dataset=dict(benchmark='vaihingen'))
test_dataloader = dict(dataset=dict(benchmark='vaihingen'))
