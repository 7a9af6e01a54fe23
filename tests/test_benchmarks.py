"""The checks that need a GPU ask for configs that run, and the comparison of networks reads the right config."""

import json
import os
import re
import shutil
import stat

import pytest
import torch
from mmengine.config import Config

from benchmarks import _timing, average_runs, isprs_prep
from benchmarks.attention import growth_table
from benchmarks.compare_networks import config_of, load_run, read_scores, score_table
from lale_mmseg.engine.component_check import check_overrides
from lale_mmseg.engine.config import check_config, complete_config
from lale_mmseg.errors import ConfigError
from lale_mmseg.evaluation import SegmentationMetric
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


def test_the_config_of_a_work_dir(tmp_path):
    with pytest.raises(ConfigError, match=r'one config of the last run is due, 0 of those here \(none\) are it'):
        config_of(tmp_path)
    cfg = Config.fromfile(CONFIG)
    cfg.model.decode_head.num_classes = 5
    cfg.dump(tmp_path / 'b.py')
    assert config_of(tmp_path) == tmp_path / 'b.py'
    found, model = load_run(tmp_path)
    assert model.num_classes == found.model.decode_head.num_classes == 5
    (tmp_path / 'a.py').write_text('model = dict()\n')
    with pytest.raises(ConfigError, match=r'0 of those here \(a\.py, b\.py\) are it'):
        config_of(tmp_path)
    for run, name in (('20260101_000000', 'b.py'), ('20260102_000000', 'a.py'), ('20260103_000000', 'b.py')):
        (tmp_path / run / 'vis_data').mkdir(parents=True)
        shutil.copy(tmp_path / name, tmp_path / run / 'vis_data' / 'config.py')
        assert config_of(tmp_path) == tmp_path / name
    shutil.copy(tmp_path / 'b.py', tmp_path / 'c.py')
    with pytest.raises(ConfigError, match=r'2 of those here \(a\.py, b\.py, c\.py\) are it'):
        config_of(tmp_path)


@pytest.mark.parametrize(('sizes', 'heading'), [([8, 16], 'ratios (4: linear in pixels)'), ([8, 24], 'ratios')])
def test_ratios_are_explained_where_sizes_double(sizes, heading):
    found = {'x': {size: dict(seconds=size * 1e-3, mebibytes=size * size) for size in sizes}}
    header, _, row = (
        [cell.strip() for cell in line.split('|')[1:-1]] for line in growth_table(found, sizes).splitlines()
    )
    assert header[3] == header[6] == heading
    ratio = sizes[1] / sizes[0]
    assert (row[3], row[6]) == (f'{ratio:.1f}', f'{ratio**2:.1f}')


def make_tested_run(folder, name, **settings):
    """A work dir with the scores of a test: its three scores by `read_scores`."""
    metric = SegmentationMetric(output_dir=str(folder / name / 'test'), **settings)
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    label = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    metric.process(None, [dict(img_path='x.png', gt_sem_seg=dict(data=label), pred_sem_seg=dict(data=label))])
    metric.evaluate(1)
    return read_scores(folder / name)


def test_boundary_scores_stand_next_to_miou(tmp_path):
    runs = dict(
        plain=make_tested_run(tmp_path, 'plain'), edges=make_tested_run(tmp_path, 'edges', boundary_tolerance=1)
    )
    columns, cells, notes = score_table(runs)
    assert columns == ('mIoU', 'mBF1', 'mBIoU', 'mF1', 'OA')
    assert cells == dict(
        plain=('100.00', '-', '-', '100.00', '100.00'), edges=('100.00', '100.00', '100.00', '100.00', '100.00')
    )
    assert notes == ['mBF1, mBIoU: boundaries within 1 pixel(s).']
    assert runs['edges']['IoU'] == dict(a=100, b=100, c=None)
    assert score_table(dict(plain=runs['plain']))[0] == ('mIoU', 'mF1', 'OA')


def test_results_of_before_protocols_and_boundaries_are_read(tmp_path):
    make_tested_run(tmp_path, 'old')
    path = tmp_path / 'old' / 'test' / 'metrics.json'
    old = json.loads(path.read_text())
    for field in ('protocol', 'boundary', 'dropped', 'num_counted_pixels'):
        del old[field]
    path.write_text(json.dumps(old))
    assert score_table(dict(old=read_scores(tmp_path / 'old')))[1] == dict(old=('100.00', '100.00', '100.00'))
    assert average_runs.read_scores(tmp_path / 'old') == {
        'OA': 100, 'mIoU': 100, 'mF1': 100, 'IoU a': 100, 'IoU b': 100
    }  # fmt: skip


def test_scores_of_different_rules_do_not_stand_in_one_table(tmp_path):
    runs = dict(
        one=make_tested_run(tmp_path, 'one', boundary_tolerance=1),
        two=make_tested_run(tmp_path, 'two', boundary_tolerance=2),
    )
    with pytest.raises(ConfigError, match='different boundary_tolerance cannot be compared'):
        score_table(runs)
    runs['two'].update(boundary_tolerance=1, protocol='rsp')
    with pytest.raises(ConfigError, match=r"different protocol cannot be compared: \{'one': None, 'two': 'rsp'\}"):
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
