"""What a test tested, for its scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config


def describe_test(
    cfg: Config,
    loaded: tuple[str, Mapping[str, Any]] | None,
    trained: tuple[int, int] | None,
    digest: str | None,
    start: str | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """Entry `run` of metrics.json.

    Args:
        cfg: Config of the run.
        loaded: Path and `meta` of the checkpoint that is tested; None for none.
        trained: Epochs and iterations done, where the network was trained in this process.
        digest: SHA-256 of the checkpoint, for held-out tests.
        start: Name of the present start, where the network was trained in this process.
        split: Name of the tested split, where the data set has one.

    Returns:
        checkpoint: Name of the file, None where the network was trained in this process or has its first weights.
        epoch, iter: Those of the checkpoint, from 1; None where it does not say, and epochs where it counts none.
        start: Name of the start of a training that saved the checkpoint, as `EpochDiagnosticsHook` has it; None where
            it does not say.
        split, digest: As given.
        mode: 'whole' or 'slide'; None where the config has no model, as of a runner that is built from parts.
        views: Name of the views that are averaged, 'none' by default; with the scales, if any. None as for `mode`.
    """
    name, meta = (None, {}) if loaded is None or trained is not None else (Path(loaded[0]).name, loaded[1])
    epoch, iteration = trained or (meta.get('epoch'), meta.get('iter'))
    mode, views = (None, None) if cfg.get('model') is None else _prediction(cfg)
    return dict(
        checkpoint=name,
        epoch=int(epoch) if epoch else None,
        iter=int(iteration) if iteration else None,
        start=start if trained is not None else meta.get('experiment_name'),
        split=split,
        digest=digest,
        mode=mode,
        views=views,
    )


def _prediction(cfg: Config) -> tuple[str, str]:
    """`mode` and `views` of a config with a model."""
    test_cfg = cfg.model.get('test_cfg') or {}
    views = str(test_cfg.get('views', 'none'))
    scales = tuple(test_cfg.get('scales') or (1.0,))
    if scales != (1.0,):
        views = f'{"" if views == "none" else f"{views}, "}scales {" ".join(f"{scale:g}" for scale in scales)}'
    return str(test_cfg.get('mode', 'whole')), views
