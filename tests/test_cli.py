"""Shared by the tools: overrides on the command line, and the last line of an interrupted tool."""

import pytest

from lale_mmseg.cli import common
from tests.support import REPO
from tests.test_docs import parse

#: Arguments before the overrides, by tool.
TOOLS = {
    'tools/train.py': ['CONFIG'],
    'tools/test.py': ['CONFIG', 'CHECKPOINT'],
    'tools/predict.py': ['CHECKPOINT', 'IMAGE'],
    'tools/analysis/attention_map.py': ['CHECKPOINT', 'IMAGE'],
    'tools/analysis/complexity.py': ['CONFIG'],
    'tools/analysis/inria_submission.py': ['CHECKPOINT', '--images', 'a', '--out', 'b'],
}


@pytest.mark.parametrize('tool', TOOLS)
def test_overrides_keep_the_spaces_of_a_path(tool, monkeypatch):
    words = {
        'data_root=/x/my  data': '/x/my  data',
        "work='/x/my data'": '/x/my data',
        'day=1 2': '1 2',
        'epochs= 5 ': 5,
        'lr=1e-3': 1e-3,
        'resume=true': True,
        'start=None': None,
        'size=(64, 32)': (64, 32),
        'tiles=[a, b]': ['a', 'b'],
        'seeds=1, 2': [1, 2],
    }
    args = parse(tool, [*TOOLS[tool], '--cfg-options', *words], monkeypatch)
    assert args.cfg_options == {word.partition('=')[0]: value for word, value in words.items()}


def test_every_tool_with_overrides_is_checked():
    takes = ("'--cfg-options'", 'add_common_options(parser)', 'add_predictor_options(parser)')
    commands = [path for path in (REPO / 'lale_mmseg' / 'cli').glob('*.py') if path.stem != 'common']
    found = {
        f'tools/{path.name}' if path in commands else str(path.relative_to(REPO))
        for path in [*commands, *(REPO / 'tools').rglob('*.py')]
        if any(text in path.read_text() for text in takes)
    }
    assert found == {*TOOLS, 'tools/analysis/data_budget.py'}  # which passes them on


def test_a_path_with_spaces_and_no_quotes_is_an_error(monkeypatch, capsys):
    with pytest.raises(SystemExit, match='2'):
        parse('tools/train.py', ['CONFIG', '--cfg-options', 'data_root=/x/my', 'data/inria'], monkeypatch)
    assert '--cfg-options data/inria: expected KEY=VALUE; quote values that contain' in capsys.readouterr().err


def interrupted():
    raise KeyboardInterrupt


def interrupted_while_formatting():
    """mmengine formats the config for each checkpoint, and reports everything that stops it as a SyntaxError."""
    try:
        raise KeyboardInterrupt
    except BaseException:
        raise SyntaxError('Failed to format the config file')  # noqa: B904 (as in mmengine)


@pytest.mark.parametrize(
    ('tool', 'main', 'message'),
    [
        ('train.py', interrupted, 'interrupted; to continue, run the same command with --resume'),
        ('lale-train', interrupted, 'interrupted; to continue, run the same command with --resume'),
        ('train.py', interrupted_while_formatting, 'interrupted; to continue, run the same command with --resume'),
        ('analysis/data_budget.py', interrupted, 'interrupted; to continue, run the same command'),
        ('test.py', interrupted, 'interrupted'),
    ],
)
def test_an_interrupted_tool_ends_in_one_line(tool, main, message, monkeypatch, capsys):
    def ended(status):
        raise SystemExit(status)

    monkeypatch.setattr('sys.argv', [f'tools/{tool}'])
    monkeypatch.setattr(common.os, '_exit', ended)
    with pytest.raises(SystemExit, match='130'):
        common.run_command(main)
    assert capsys.readouterr().err == f'{message}\n'


def test_other_syntax_errors_are_no_interruption():
    def wrong():
        raise SyntaxError('a real error')

    with pytest.raises(SyntaxError, match='a real error'):
        common.run_command(wrong)
