"""The hooks that every run needs."""

#: Merged under the `default_hooks` of every config, so a config changes or disables (None) each by its name.
DEFAULT_HOOKS = dict(
    provenance=dict(type='ProvenanceHook'),
    epoch_seed=dict(type='EpochSeedHook'),
    resumed_validation=dict(type='ResumedValidationHook'),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    broadcast_buffers=dict(type='BroadcastBuffersHook'),
)
