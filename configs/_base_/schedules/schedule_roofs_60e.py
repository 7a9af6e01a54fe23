# schedule_plateau_60e.py as in the study of few-shot roofs: the best checkpoint, the learning rate and early stopping
# follow the mean over the IoU of the validation tiles, not the IoU of the pooled pixels (docs/few_shot.md).
_base_ = './schedule_plateau_60e.py'
param_scheduler = [
    dict(type='ReduceOnPlateauLR', monitor='mean_tile_IoU', rule='greater', factor=0.5, patience=3, by_epoch=True)
]
default_hooks = dict(
    checkpoint=dict(save_best='mean_tile_IoU'),
    early_stopping=dict(monitor='mean_tile_IoU'),
)
