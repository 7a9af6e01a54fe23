"""What the tools share: overrides on the command line, and what a stopped tool says."""

import pytest

from tests.support import REPO
from tests.test_docs import load_script, parse

#: Words before the overrides, by tool.
TOOLS = {
    'tools/train.py': ['CONFIG'],
    'tools/test.py': ['CONFIG', 'CHECKPOINT'],
    'tools/predict.py': ['CHECKPOINT', 'IMAGE'],
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
    takes = ("'--cfg-options'", 'add_common_options(parser)')
    found = {
        str(path.relative_to(REPO))
        for path in (REPO / 'tools').rglob('*.py')
        if not path.name.startswith('_') and any(text in path.read_text() for text in takes)
    }
    assert found == {*TOOLS, 'tools/analysis/data_budget.py'}  # which hands them on as they are


@pytest.mark.parametrize(
    ('tool', 'said'),
    [
        ('train.py', 'interrupted; the same command with --resume goes on'),
        ('analysis/data_budget.py', 'interrupted; the same command goes on'),
        ('analysis/inria_submission.py', 'interrupted; the same command goes on'),
        ('test.py', 'interrupted'),
    ],
)
def test_a_stopped_tool_says_how_it_goes_on(tool, said, monkeypatch, capsys):
    cli = load_script('tools/_cli.py')

    def stopped():
        raise KeyboardInterrupt

    def ended(status):
        raise SystemExit(status)

    monkeypatch.setattr('sys.argv', [f'tools/{tool}'])
    monkeypatch.setattr(cli.os, '_exit', ended)
    with pytest.raises(SystemExit, match='130'):
        cli.run(stopped)
    assert capsys.readouterr().err == f'{said}\n'


def test_a_path_with_spaces_and_no_quotes_is_told(monkeypatch, capsys):
    with pytest.raises(SystemExit, match='2'):
        parse('tools/train.py', ['CONFIG', '--cfg-options', 'data_root=/x/my', 'data/inria'], monkeypatch)
    assert '--cfg-options data/inria: KEY=VALUE is due; a value with spaces needs quotes' in capsys.readouterr().err


def test_a_stop_while_a_config_is_written_is_one_too(monkeypatch, capsys):
    """mmengine formats the config for each checkpoint, and takes everything that ends it for a fault of syntax."""
    cli = load_script('tools/_cli.py')

    def stopped():
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise SyntaxError('Failed to format the config file')  # noqa: B904 (as there)

    def ended(status):
        raise SystemExit(status)

    def wrong():
        raise SyntaxError('a fault of ours')

    monkeypatch.setattr('sys.argv', ['tools/train.py'])
    monkeypatch.setattr(cli.os, '_exit', ended)
    with pytest.raises(SystemExit, match='130'):
        cli.run(stopped)
    assert capsys.readouterr().err == 'interrupted; the same command with --resume goes on\n'
    with pytest.raises(SyntaxError, match='a fault of ours'):
        cli.run(wrong)
