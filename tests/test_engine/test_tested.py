"""What scores say of the test that they are of."""

import json

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from lale_mmseg.engine.runner import LALERunner
from tests.test_engine.tiny_run import tiny_config


def test_a_runner_that_is_built_from_parts_does_not_say_how_it_predicts(tmp_path):
    init_default_scope('mmseg')
    cfg = tiny_config(tmp_path)
    runner = LALERunner(
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


def starts_of_rows(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'diagnostics.jsonl').read_text().splitlines()]
    return [row['starts'] for row in rows]


def test_rows_and_tests_say_which_start_trained_them(tmp_path):
    free = dict(test_dataloader=dict(dataset=dict(free=True)))
    first = LALERunner.from_cfg(tiny_config(tmp_path, epochs=1, test=True, **free))
    first.train()
    first.test()
    assert (run_of(tmp_path)['start'], run_of(tmp_path)['split']) == (first.experiment_name, 'test')
    resumed = LALERunner.from_cfg(tiny_config(tmp_path, epochs=2, test=True, resume=True, **free))
    resumed.train()
    assert resumed.experiment_name != first.experiment_name
    assert starts_of_rows(tmp_path) == [[first.experiment_name], [resumed.experiment_name]]
    for epoch, start in ((1, first), (2, resumed)):
        path = str(tmp_path / f'epoch_{epoch}.pth')
        LALERunner.from_cfg(tiny_config(tmp_path, test=True, load_from=path, **free)).test()
        assert (run_of(tmp_path)['start'], run_of(tmp_path)['epoch']) == (start.experiment_name, epoch)


def test_an_attempt_is_the_training_whatever_config_it_is_tested_with(tmp_path):
    """Seeds of the command line are in the config of the training alone, and a resumed one keeps its first."""
    hashes = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        LALERunner.from_cfg(tiny_config(folder, epochs=1, randomness=dict(seed=seed))).train()
        LALERunner.from_cfg(tiny_config(folder, epochs=2, resume=True, randomness=dict(seed=7))).train()
        attempts = {torch.load(folder / f'epoch_{epoch}.pth', weights_only=True)['meta']['attempt'] for epoch in (1, 2)}
        assert len(attempts) == 1
        hashes += attempts
        LALERunner.from_cfg(tiny_config(tmp_path / 'tests', load_from=str(folder / 'epoch_2.pth'))).test()
        source = json.loads((tmp_path / 'tests/test/metrics.json').read_text())['source']
        assert source['test_read'] == 1  # another attempt, by the ledger of one work dir
    assert hashes[0] != hashes[1]
