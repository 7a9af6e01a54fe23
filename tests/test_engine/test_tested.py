"""What scores say of the test that they are of."""

import json

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from lale_mmseg.engine.runner import LaleRunner
from tests.test_engine.tiny_run import tiny_config


def test_a_runner_that_is_built_from_parts_does_not_say_how_it_predicts(tmp_path):
    init_default_scope('mmseg')
    cfg = tiny_config(tmp_path)
    runner = LaleRunner(
        model=MODELS.build(cfg.model),
        work_dir=str(tmp_path),
        test_dataloader=cfg.val_dataloader,
        test_cfg=dict(type='TestLoop'),
        test_evaluator=cfg.test_evaluator,
        default_scope='mmseg',
        experiment_name=cfg.experiment_name,
        default_hooks=dict(report=dict(type='ReportHook')),
    )
    runner.test()
    said = json.loads((tmp_path / 'test/metrics.json').read_text())['run']
    assert {name for name, value in said.items() if value is not None} == {'split'}


def run_of(work_dir):
    return json.loads((work_dir / 'test/metrics.json').read_text())['run']


def names_of_rows(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'diagnostics.jsonl').read_text().splitlines()]
    return [row['training'] for row in rows]


def test_a_training_and_the_tests_of_its_checkpoints_have_one_name(tmp_path):
    """Also over a resume; another training in the same folder has another one."""
    free = dict(test_dataloader=dict(dataset=dict(free=True)))
    first = LaleRunner.from_cfg(tiny_config(tmp_path, epochs=1, test=True, **free))
    first.train()
    name = first.experiment_name
    first.test()
    assert (run_of(tmp_path)['training'], run_of(tmp_path)['split']) == (name, 'test')
    assert names_of_rows(tmp_path) == [name]

    resumed = LaleRunner.from_cfg(tiny_config(tmp_path, epochs=2, test=True, resume=True, **free))
    resumed.train()
    assert resumed.experiment_name != name
    assert names_of_rows(tmp_path) == [name, name]

    LaleRunner.from_cfg(tiny_config(tmp_path, test=True, load_from=str(tmp_path / 'epoch_2.pth'), **free)).test()
    assert (run_of(tmp_path)['training'], run_of(tmp_path)['epoch']) == (name, 2)

    # Weights of another training do not make this one that training.
    other = LaleRunner.from_cfg(tiny_config(tmp_path, epochs=1, load_from=str(tmp_path / 'epoch_2.pth')))
    other.train()
    assert names_of_rows(tmp_path) == [other.experiment_name]
    assert other.experiment_name != name


def test_checkpoints_that_name_no_training_have_none(tmp_path):
    LaleRunner.from_cfg(tiny_config(tmp_path, epochs=1)).train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    del checkpoint['meta']['training']
    torch.save(checkpoint, tmp_path / 'old.pth')
    cfg = tiny_config(tmp_path, test=True, load_from=str(tmp_path / 'old.pth'))
    cfg.test_dataloader.dataset.free = True
    LaleRunner.from_cfg(cfg).test()
    assert run_of(tmp_path)['training'] is None
