# ISPRS Vaihingen (infrared, red, green) under protocol C (RSP, LeMeViT): full labels, clutter ignored, five outputs
# (docs/protocols.md).
# Published so, validation is on the 17 test tiles. A config that keeps `save_best` chooses its checkpoint on them; the
# configs here test the last one, and vaihingen_rsp_clean.py validates on a training tile.
_base_ = './potsdam_rsp.py'
data_root = 'data/vaihingen'
train_dataloader = dict(dataset=dict(city='vaihingen'))
val_dataloader = dict(dataset=dict(city='vaihingen'))
test_dataloader = dict(dataset=dict(city='vaihingen'))
