"""The runner: mmengine's, on any device, with checkpoints that are plain data and configs that are checked."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process, master_only
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import RUNNERS
from torch import nn

from .. import compat
from ..errors import ConfigError
from ..files import atomic_path, results_dir, write_json
from . import held_out
from .checkpoint import load_weights, newest_checkpoint, read_checkpoint, rename_weights
from .config import PHASES, check_config, complete_config
from .console import ConsoleFilter
from .default_hooks import MMENGINE_HOOKS
from .fields import located_errors
from .network_check import check_heads
from .pretrained import load_pretrained_parts, take_pretrained_parts
from .provenance import config_hash, describe_test, tiles_seen, warn_of_seen_tiles
from .splits import check_scoring, check_splits, scenes_of
from .unwrap import unwrapped


@RUNNERS.register_module()
class LALERunner(Runner):
    """mmengine's runner with these differences.

    * A config is completed and checked (`lale_mmseg.engine.config`) before anything is built. Parts that cannot be
      built are reported with the path of the config field and the nearest name.
    * Hooks that every run needs are merged into `default_hooks` (`lale_mmseg.engine.default_hooks`).
    * Distributed runs work on CPUs, over gloo; SyncBN becomes BN there.
    * Checkpoints are written atomically, hold plain data, and are read without running code; weights that do not fit
      are an error unless the config sets `partial_load = True`. The same holds for `init_cfg=dict(type='Pretrained')`.
    * `resume` without a path finds the newest readable checkpoint in the work dir.
    * A model whose data preprocessor is channels-last gets channels-last weights.
    * `compile` compiles the networks (backbone, neck, parts of heads), not the training step around them.
    * Held-out splits are neither trained on nor selected by; a test of one needs `allow_held_out = True` and is
      recorded in a ledger (`lale_mmseg.engine.held_out`).
    * A test writes run.json, what it tested and how, beside its scores.
    """

    _resume: bool | str
    _load_from: str | None
    #: `meta` of the checkpoint that weights were loaded from, and its path.
    _loaded: tuple[str, dict] | None = None
    #: Hash of the training config, from the first start of a resumed training.
    _training_hash: str | None = None
    #: Tiles that the weights were trained on, those of this run included.
    _seen: frozenset[str] = frozenset()
    #: Content of run.json, once a test has begun.
    _tested: dict[str, Any] | None = None

    @classmethod
    def from_cfg(cls, cfg: Config) -> LALERunner:
        """Builds a runner from a config."""
        with located_errors(cfg):
            cfg = complete_config(cfg)
            runner = super().from_cfg(cfg)
            check_heads(runner.model)
            return runner

    def setup_env(self, env_cfg: dict) -> None:
        """Sets up the environment; on CPUs joins the process group first, because mmengine's way needs a GPU."""
        if self.distributed and compat.is_cpu_only():
            timeout = env_cfg.get('dist_cfg', {}).get('timeout', 300)
            compat.init_cpu_process_group(self.launcher, timeout)
        super().setup_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Builds mmengine's logger, with the same arguments; its long messages go to the log file alone."""
        logger = super().build_logger(*args, **kwargs)
        evaluators = [self.cfg.get('val_evaluator'), self.cfg.get('test_evaluator')]
        has_table = "'SegmentationMetric'" in str(evaluators)
        files = [handler.baseFilename for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(ConsoleFilter(handler, has_table))
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} thread(s)'
        )
        logger.info(
            f'{self.experiment_name}: {self.world_size} process(es), {device}, seed {self.seed}; '
            f'environment and config: {", ".join(files)}'
        )
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Moves the model to its device and memory format, and wraps it in distributed runs."""
        if not is_model_wrapper(model) and getattr(unwrapped(model).data_preprocessor, 'channels_last', False):
            model = model.to(memory_format=torch.channels_last)
        if self.distributed and compat.is_cpu_only() and not is_model_wrapper(model):
            model = revert_sync_batchnorm(model)
            model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                device_ids=None,
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
            )
        return super().wrap_model(model_wrapper_cfg, model)

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Registers the hooks of the config; mmengine can disable (None) only its own by name, this any."""
        named = (default_hooks or {}).items()
        kept = {name: hook for name, hook in named if hook is not None or name in MMENGINE_HOOKS}
        super().register_hooks(kept, custom_hooks)

    def train(self) -> nn.Module:
        """Checks the config against its data, then trains."""
        with self._checked('train', 'val'):
            check_splits(self.cfg)
            self._seen |= scenes_of(self.cfg, 'train')
            self._require_own_work_dir()
            return super().train()

    def _require_own_work_dir(self) -> None:
        """Refuses a work dir with checkpoints of another run: `--resume` would later continue whichever is ahead."""
        names = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth')
        used = sorted(path for name in names for path in Path(self.work_dir).glob(name))
        if not used or self._resume:
            return
        if not self.cfg.get('overwrite', False):
            shown = ', '.join(path.name for path in used[:3]) + (' ...' if len(used) > 3 else '')
            raise ConfigError(
                f'{self.work_dir} has checkpoints of another run ({shown}): continue that run with --resume, choose '
                'another --work-dir, or remove them with --overwrite'
            )
        if self._load_from and Path(self._load_from).resolve() in [path.resolve() for path in used]:
            raise ConfigError(f'load_from is {self._load_from}, which --overwrite would remove; use another --work-dir')
        if is_main_process():
            for path in used:
                path.unlink()

    def val(self) -> dict:
        """Checks the config against its data, then validates."""
        with self._checked('val'):
            return super().val()

    def test(self) -> dict:
        """Checks the config against its data, tests, and writes run.json into `test/` of the work dir.

        A read of a held-out split is recorded when all is ready, right before its first image is read.

        Raises:
            ConfigError: A held-out split is to be tested without `allow_held_out = True`, or its ledger cannot be
                written.
            CheckpointError: A held-out split is to be tested with weights that come from no checkpoint file.
        """
        with self._checked('test'):
            metrics = super().test()
        if is_main_process():
            write_json(results_dir(self.work_dir, 'test') / 'run.json', self._tested)
        return metrics

    @contextmanager
    def _checked(self, *phases: str) -> Iterator[None]:
        """Checks the config for these phases; errors of parts that are built inside name their config field."""
        with located_errors(self.cfg):
            check_config(self.cfg, phases)
            held_out.check(self.cfg, phases)
            check_scoring(self.cfg, [phase for phase in phases if phase != 'train'])
            yield

    def load_or_resume(self) -> None:
        """Loads or resumes.

        `resume='auto'`, or `resume=True` without `load_from`, takes the newest readable checkpoint of the work dir;
        where there is none, training starts at iteration 0, from the weights of `load_from` if it is given.
        """
        self._find_resumed()
        super().load_or_resume()
        if isinstance(self._test_loop, BaseLoop):
            self._tested = self._describe_test()
            # Weights and data are ready: nothing but the test itself can fail after the read is recorded.
            self._tested['test_read'] = held_out.note_read(self.cfg, self._tested)

    def _describe_test(self) -> dict[str, Any]:
        """Content of run.json, without the number of the read."""
        checkpoint, meta = self._loaded or (None, {})
        if isinstance(self._train_loop, BaseLoop):  # trained in this process
            checkpoint, meta = None, dict(epoch=self.epoch, iter=self.iter, config_hash=self._training_hash)
        predictor = getattr(self._test_loop, 'predictor', None)  # mmengine's own loop has none
        # How windows are batched does not change a result.
        prediction = {} if predictor is None else asdict(predictor.options)
        prediction = {name: value for name, value in prediction.items() if name not in ('batch_size', 'keep_logits')}
        return describe_test(
            self.cfg, checkpoint, meta, getattr(self.test_dataloader.dataset, 'split', None), prediction
        )

    def _note_seen(self, seen: frozenset[str]) -> None:
        """Adds tiles that loaded weights were trained on, and warns if this run evaluates them."""
        self._seen |= seen
        running = [phase for phase in PHASES if isinstance(getattr(self, f'_{phase}_loop'), BaseLoop)]
        # A training also warns of its test set, which is tested later.
        warn_of_seen_tiles(seen, self.cfg, ('val', 'test') if 'train' in running else running)

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resumes, with the same arguments as mmengine's, and gives samplers the seed of the checkpoint, too."""
        before = self.seed
        super().resume(*args, **kwargs)
        sampler = self.train_dataloader.sampler
        if self.seed != before and getattr(sampler, 'seed', None) == before:
            sampler.seed = self.seed

    def _find_resumed(self) -> None:
        """Finds the checkpoint to resume from; later calls have no effect."""
        if self._has_loaded or not self._resume or (self._resume != 'auto' and self._load_from is not None):
            return
        path, passed_over = newest_checkpoint(self.work_dir)
        for message in passed_over:
            self.logger.warning(f'passed over when resuming: {message}')
        if path is None:
            self.logger.warning(f'nothing to resume in {self.work_dir}: training starts at iteration 0')
            self._resume = False
        else:
            self._load_from, self._resume = str(path), True

    def _init_model_weights(self) -> None:
        self._find_resumed()
        if self._resume:  # the checkpoint has all weights: no published ones are read or downloaded
            for part in unwrapped(self.model).modules():
                if hasattr(part, 'pretrained_weights'):
                    part.pretrained_weights = None
        # Loaded last: a part whose `init_weights` finds no `init_cfg` starts from random weights.
        parts = take_pretrained_parts(unwrapped(self.model))
        super()._init_model_weights()
        trust = self.cfg.get('trust_checkpoint', False)
        seen = load_pretrained_parts([] if self._resume else parts, trust=trust)
        self._note_seen(seen)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list | None = None,
    ) -> dict:
        """Loads weights; whatever does not fit is an error, unless the config sets `partial_load = True`.

        Args:
            filename: Local file or http(s) address.
            map_location: See `torch.load`.
            strict: Ignores `partial_load`; weights must fit in any case.
            revise_keys: (pattern, replacement) pairs applied to the names; by default the prefix `module.` goes.

        Raises:
            CheckpointError: The file cannot be read, is not trusted, or does not fit.
        """
        checkpoint = read_checkpoint(filename, map_location, trust=self.cfg.get('trust_checkpoint', False))
        # Before the hooks: EMAHook takes what has the names of the network, and passes over the rest.
        checkpoint['state_dict'] = rename_weights(checkpoint['state_dict'], revise_keys or [(r'^module\.', '')])
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        self._note_seen(tiles_seen(checkpoint))
        if self._resume:
            self._training_hash = (checkpoint.get('meta') or {}).get('config_hash') or self._training_hash
        partial = self.cfg.get('partial_load', False) and not strict
        load_weights(unwrapped(self.model), checkpoint['state_dict'], filename, partial)
        self._has_loaded = True
        self.logger.info(f'loaded {filename}')
        self._loaded = str(filename), checkpoint.get('meta') or {}
        return checkpoint

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Saves a checkpoint atomically, with the same arguments as mmengine's `Runner.save_checkpoint`.

        Its `meta` records what the weights were trained with and on: `config_hash`, of the first start of a resumed
        training, and `seen_tiles`, those of the training set and of all checkpoints that weights were loaded from.
        """
        self._training_hash = self._training_hash or config_hash(self.cfg)
        meta = {'config_hash': self._training_hash, 'seen_tiles': sorted(self._seen)}
        kwargs['meta'] = {**(kwargs.get('meta') or {}), **meta}
        if '://' in out_dir:  # a remote backend writes objects in one piece
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with atomic_path(Path(out_dir) / filename, sync=True) as temporary:
            super().save_checkpoint(out_dir, temporary.name, *args, **kwargs)

    def _maybe_compile(self, target: str) -> None:
        options = self.cfg.get('compile')
        if not options:
            return
        options = {} if options is True else copy.deepcopy(dict(options))
        compile_networks(unwrapped(self.model), options)
        self.logger.info('networks are compiled at their first use: the first iterations are slow')


def compile_networks(model: nn.Module, options: dict) -> None:
    """Compiles backbone, neck and the parts of heads in place; names of weights stay as they are.

    Heads are entered at `loss` and `predict`, which call `forward` as a plain method, so their parts are compiled
    rather than they themselves.
    """
    for name in ('backbone', 'neck'):
        if getattr(model, name, None) is not None:
            getattr(model, name).compile(**options)
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        for part in head.children() if head is not None else ():
            containers = isinstance(part, (nn.ModuleList, nn.ModuleDict))
            for module in part.children() if containers else (part,):
                module.compile(**options)
