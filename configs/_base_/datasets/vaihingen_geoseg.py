# ISPRS Vaihingen (infrared, red, green) under protocol A (GeoSeg, UNetFormer): 15 tiles, validated on 30, tested on the
# eroded labels of 17 (docs/protocols.md).
_base_ = './potsdam_geoseg.py'
data_root = 'data/vaihingen'
train_dataloader = dict(dataset=dict(benchmark='vaihingen'))
val_dataloader = dict(dataset=dict(benchmark='vaihingen'))
test_dataloader = dict(dataset=dict(benchmark='vaihingen'))
