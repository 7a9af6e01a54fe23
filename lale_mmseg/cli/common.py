"""Shared by the command line tools: one-line errors for bad input, and common options."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier, is_distributed
from torch.distributed import destroy_process_group

from ..compat import keep_freed_memory, packaged_config
from ..engine.fields import check_overrides
from ..errors import ConfigError, InputError
from ..inference import Predictor

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
AMP_DTYPES = {'bf16': 'bfloat16', 'fp16': 'float16'}

#: Matches the end of an error from a data worker, which is the message of the original error.
_WORKER_ERROR = re.compile(r'lale_mmseg\.errors\.\w+: (.*)\Z', re.DOTALL)

#: How to continue an interrupted tool, if it can be continued.
_CONTINUE = {
    'train.py': '; to continue, run the same command with --resume',
    'lale-train': '; to continue, run the same command with --resume',
    'data_budget.py': '; to continue, run the same command',
    'inria_submission.py': '; to continue, run the same command',
}


class OverrideAction(DictAction):
    """KEY=VALUE overrides like mmengine's DictAction, but spaces in values (paths) are kept, except in lists."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *rest: Any) -> None:
        """Reads the overrides from the command line."""
        for text in values:
            if '=' not in text:
                parser.error(f'{self.option_strings[0]} {text}: expected KEY=VALUE; quote values that contain spaces')
        super().__call__(parser, namespace, values, *rest)

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        text = val.strip('\'"').strip()
        value = DictAction._parse_iterable(text)
        return text if ' ' in text and not isinstance(value, list | tuple) else value


def run_command(main: Callable[[], int | None]) -> None:
    """Runs a tool; bad input ends in one line on standard error and exit status 2, an interruption in status 130."""
    try:
        status = main()
    except (InputError, FileNotFoundError) as error:
        match = _WORKER_ERROR.search(str(error))
        message = match.group(1).strip() if match else str(error)
        print(f'error: {message}', file=sys.stderr)
        # Other threads (data workers, collectives) must not keep a failed rank alive.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2) if os.environ.get('WORLD_SIZE') else sys.exit(2)
    except (KeyboardInterrupt, SyntaxError) as error:
        # mmengine turns an interrupt into a SyntaxError while it formats a config for a checkpoint.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print(f'interrupted{_CONTINUE.get(Path(sys.argv[0]).name, "")}', file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # at once, since data workers were interrupted as well
    if is_distributed():
        # A rank that exits while its communication threads still run is sometimes aborted by the C++ runtime.
        barrier()
        destroy_process_group()
    sys.exit(status or 0)


def add_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    """The option `--cfg-options`, with its help text."""
    parser.add_argument('--cfg-options', nargs='+', action=OverrideAction, default={}, metavar='KEY=VALUE', help=text)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of tools that run a config."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and pictures (default: work_dirs/CONFIG)')
    add_overrides(
        parser, 'override fields of the config, for example data_root=/data/mine train_dataloader.batch_size=4'
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='how the processes are started')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by some launchers; unused')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints that hold more than weights and plain data; this may run code of their author',
    )


def load_config(args: argparse.Namespace) -> Config:
    """Loads the config from the command line with its overrides, work dir and launcher.

    Raises:
        ConfigError: The file is missing or not a config, or an override names an unknown field.
    """
    path = Path(args.config if '::' not in args.config else packaged_config(args.config))
    if not path.is_file():
        raise ConfigError(f'{path}: no such config file')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, FileNotFoundError, ImportError, KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f'{path}: not a usable config ({type(error).__name__}: {error})') from None
    if 'model' not in cfg:
        raise ConfigError(f'{path}: no field model; expected the config of a whole run, not one of its _base_ files')
    check_overrides(cfg, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    cfg.launcher = args.launcher
    if args.trust_checkpoint:
        cfg.trust_checkpoint = True
    return cfg


def add_predictor_options(parser: argparse.ArgumentParser) -> None:
    """Options of tools that predict with a checkpoint alone, see `load_predictor`."""
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')
    add_overrides(parser, 'override fields of the config in the checkpoint, for example model.test_cfg.mode=slide')
    parser.add_argument('--trust-checkpoint', action='store_true', help='see tools/test.py')


def load_predictor(args: argparse.Namespace, tta: bool = False) -> Predictor:
    """The network of a checkpoint with the options of the command line."""
    device = args.device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    if device == 'cpu':
        keep_freed_memory()
    return Predictor.from_checkpoint(args.checkpoint, device, args.trust_checkpoint, args.cfg_options, tta)
