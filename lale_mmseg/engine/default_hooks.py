"""Names and configs of the hooks that every run has."""

#: Merged under the `default_hooks` of every config, so a config changes or disables (None) each by its name.
DEFAULT_HOOKS = dict(
    epoch_seed=dict(type='EpochSeedHook'),
    resumed_validation=dict(type='ResumedValidationHook'),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    broadcast_buffers=dict(type='BroadcastBuffersHook'),
)
#: Default hooks of mmengine's own.
MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
#: Default hooks that watch a training and do not change its weights.
OBSERVERS = (*MMENGINE_HOOKS, 'visualization', 'report', 'diagnostics', 'resumed_validation', 'plain_checkpoint')
