"""The checks that need a GPU ask for configs that run, and the comparison of networks reads the right config."""

import json
import os
import re
import stat

import pytest
from mmengine.config import Config

from benchmarks import _timing, isprs_prep
from benchmarks.attention import growth_table
from benchmarks.compare_networks import score_table
from lale_mmseg.engine.config import check_config, complete_config
from lale_mmseg.engine.fields import check_overrides
from lale_mmseg.errors import ConfigError
from tests.runs import write_run
from tests.support import REPO, run_tool
from tests.test_docs import parse

#: Stands in for python: notes its arguments and leaves out the work.
STUB = """#!/usr/bin/env bash
printf '%s\\n' "$(printf '%s\\t' "$@")" >> "$CALLS"
[ "$1" != - ] || cat > /dev/null
"""


@pytest.fixture(scope='module')
def gpu_calls(tmp_path_factory) -> list[list[str]]:
    """What benchmarks/gpu_checks.sh calls python with."""
    root = tmp_path_factory.mktemp('gpu_checks')
    for name, text in (('python', STUB), ('cmp', '#!/usr/bin/env bash\n')):
        (root / name).write_text(text)
        (root / name).chmod(stat.S_IRWXU)
    env = dict(CALLS=str(root / 'calls'), STUB=str(root))
    # run_tool names the interpreter, and sets the path.
    command = 'export PATH="$STUB:$PATH" PYTHON="$STUB/python"; bash benchmarks/gpu_checks.sh "$0"'
    done = run_tool('bash', '-c', command, root / 'out', env=env)
    assert done.stdout.splitlines()[-1] == 'GPU checks passed'
    return [line.rstrip('\t').split('\t') for line in (root / 'calls').read_text().splitlines()]


def runs(calls: list[list[str]]) -> list[tuple[str, list[str]]]:
    """(script, its words) of each training and test."""
    found = []
    for words in calls:
        for place, word in enumerate(words):
            if word.endswith(('tools/train.py', 'tools/test.py')):
                found.append((word[word.index('tools/') :], words[place + 1 :]))
    return found


def test_configs_of_the_gpu_checks_load_and_fit_their_data(gpu_calls, toy_root, monkeypatch):
    found = runs(gpu_calls)
    assert {script for script, _ in found} == {'tools/train.py', 'tools/test.py'}
    configs = set()
    for script, words in found:
        args = parse(script, words, monkeypatch)
        assert args.cfg_options['data_root'] == str(gpu_calls[0][1])  # where the set is made
        args.cfg_options['data_root'] = str(toy_root)
        cfg = Config.fromfile(REPO / args.config)
        check_overrides(cfg, args.cfg_options)
        cfg.merge_from_dict(args.cfg_options)
        cfg = complete_config(cfg)
        check_config(cfg, ('train', 'val', 'test') if 'train' in script else ('test',))
        configs.add(cfg.model.backbone.type)
        if 'train' not in script:
            assert args.checkpoint.startswith(os.path.dirname(gpu_calls[0][1]))
        elif 'paramwise_cfg' in cfg.optim_wrapper:
            assert max(step.end for step in cfg.param_scheduler) == cfg.train_cfg.max_iters == 20
            assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin
            assert cfg.train_cfg.val_interval <= cfg.train_cfg.max_iters
            assert cfg.train_cfg.max_iters % cfg.default_hooks.checkpoint.interval == 0
            assert cfg.train_dataloader.batch_size == 8
    assert configs == {'GhostNet', 'LALE', 'LRFormer'}


CONFIG = REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'


@pytest.mark.parametrize(('sizes', 'heading'), [([8, 16], 'ratios (4: linear in pixels)'), ([8, 24], 'ratios')])
def test_ratios_are_explained_where_sizes_double(sizes, heading):
    found = {'x': {size: dict(seconds=size * 1e-3, mebibytes=size * size) for size in sizes}}
    header, _, row = (
        [cell.strip() for cell in line.split('|')[1:-1]] for line in growth_table(found, sizes).splitlines()
    )
    assert header[3] == header[6] == heading
    ratio = sizes[1] / sizes[0]
    assert (row[3], row[6]) == (f'{ratio:.1f}', f'{ratio**2:.1f}')


def test_tests_of_one_table_have_the_same_data_and_rules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    from read_runs import read_run

    runs = [read_run(write_run(tmp_path / name, [50.0], test=1)) for name in 'ab']
    columns, cells = score_table(runs)
    assert columns == ['mIoU', 'mF1', 'OA', 'mean_tile_IoU', 'mean_tile_F1']
    assert cells['a'][0] == f'{runs[0].metrics["test"]["summary"]["mIoU"]:.2f}'
    runs[1].metrics['test']['num_images'] = 3
    with pytest.raises(ConfigError, match=r'not comparable: .*images'):
        score_table(runs)


@pytest.mark.slow
def test_the_comparison_of_sliding_windows_runs_and_finds_equal_results():
    sizes = ['--size', '200', '--window', '64', '--stride', '43', '--repeats', '1']
    done = run_tool('python', 'benchmarks/slide.py', *sizes)
    found = re.search(r'averaged logits: (\S+) .*\. Pixels of another class: (\d+) .*, (\d+) more', done.stdout)
    assert float(found[1]) < 1e-4
    assert int(found[2]) < 10
    assert int(found[3]) == 0


def test_preparing_is_measured_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_timing, 'RESULTS', tmp_path / 'results')
    (tmp_path / 'work').mkdir()
    sizes = ['--side', '96', '--size', '64', '--stride', '32', '--repeats', '1', '--folder', str(tmp_path / 'work')]
    isprs_prep.main([*sizes, '--save'])
    assert list((tmp_path / 'work').iterdir()) == []
    saved = json.loads((tmp_path / 'results' / 'isprs_prep_cpu.json').read_text())['values']
    assert set(saved['medians']) == {'1', '2'}
    for values in saved['medians'].values():
        assert 0.1 < values['seconds'] < 60
        # The process that measures holds torch, and more than this one may.
        assert 20 < values['peak'] < 300
        assert values['windows'] > values['whole'] > 0
    assert '2 synthetic tile(s) of 96x96 pixels' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        isprs_prep.main(['--threads', '3'])
    assert '--threads 3: expected 1 to --tiles 2' in capsys.readouterr().err
