# What every run shares. A config that inherits this file needs nothing else to see lale_mmseg.
default_scope = 'mmseg'
custom_imports = dict(imports=['lale_mmseg.register'], allow_failed_imports=False)
runner_type = 'LALERunner'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl', timeout=300),
)
# Weights & Biases in a config that inherits this file, by one line (MLflow: MLflowVisBackend):
#   visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='WandbVisBackend')])
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
