"""Whole files, manifests, worker counts, and what the scripts may import."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_prep import inria, isprs
from data_prep._cli import run_main
from data_prep._files import Manifest, only_run, remove_leftovers, whole_file, write_bytes
from data_prep._progress import check_workers, map_jobs
from lale_mmseg.errors import ConfigError, DataError, InputError

ROOT = Path(__file__).resolve().parents[2]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'a.bin'
    write_bytes(path, b'old')

    def stop_halfway() -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b'half')
            assert path.read_bytes() == b'old'
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [('a.bin', b'old')]


def test_manifest_checks_and_removes_parts_and_keeps_notes(tmp_path):
    manifest = Manifest(tmp_path / 'out', 'raw', ['train'])
    manifest.begin('train', dict(window=4))
    manifest.notes['last'] = 'x'
    manifest.save()
    write_bytes(tmp_path / 'out' / 'train', b'x')
    again = Manifest(tmp_path / 'out', 'raw', ['train'])
    assert again.notes == dict(last='x')
    again.check('train', dict(window=4))
    with pytest.raises(InputError, match="part 'train' is there already and was made from raw"):
        again.check('train', dict(window=5))
    again.remove('train')
    again.save()
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['manifest.json']
    assert Manifest(tmp_path / 'out', 'raw', ['train']).parts == {}


def test_unwritable_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r'no/a\.bin: cannot be written \(No such file or directory\)'):
        write_bytes(tmp_path / 'no' / 'a.bin', b'x')


def test_only_our_leftovers_are_removed(tmp_path):
    for name in ('.a.png.12.part', 'film.part', '.hidden'):
        (tmp_path / name).write_bytes(b'x')
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.hidden', 'film.part']


HOLDS = """
import sys, time
from data_prep._files import only_run

with only_run(sys.argv[1]):
    print('held', flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize(
    'prepare',
    [
        lambda folder: inria.prepare(inria.Request('few-shot', 8), folder, folder / 'out'),
        lambda folder: inria.main(['few-shot', str(folder), str(folder / 'out')]),
        lambda folder: isprs.prepare(isprs.Request('potsdam'), folder, folder / 'out'),
    ],
)
def test_a_second_process_is_refused_until_the_first_ends(tmp_path, prepare):
    """It also leaves what the first has unpacked; a process that is killed does not keep the next one out."""
    unpacked = tmp_path / '.out.unpacked' / 'archives' / 'a.zip'
    unpacked.parent.mkdir(parents=True)
    unpacked.touch()
    first = subprocess.Popen(
        [sys.executable, '-c', HOLDS, tmp_path / 'out'], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == 'held\n'
        with pytest.raises(InputError, match=rf'out: process {first.pid} on .* prepares this folder; wait until it'):
            prepare(tmp_path)
        assert unpacked.exists()
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    assert (tmp_path / '.out.lock').exists()
    with pytest.raises(DataError, match=r'no tile (of potsdam )?was found'):
        prepare(tmp_path)
    assert not (tmp_path / '.out.lock').exists()


def test_a_folder_is_free_after_a_run(tmp_path):
    for _ in range(2):
        with only_run(tmp_path / 'a' / 'out'):
            assert not (tmp_path / 'a' / 'out').exists()
    assert list((tmp_path / 'a').iterdir()) == []


def test_manifest_continues_only_the_same_source(tmp_path):
    Manifest(tmp_path, 'raw', ['train']).begin('train', dict(window=4))['rows'] = 3
    manifest = Manifest(tmp_path, 'raw', ['train'])
    assert manifest.begin('train', dict(window=4))['complete'] is False
    with pytest.raises(InputError, match=r"made from raw with \{'window': 4\}, not with \{'window': 8\}"):
        manifest.begin('train', dict(window=8))


def test_only_what_differs_is_named(tmp_path):
    before = dict(window=4, files={'a.tif': 1, 'b.tif': 2})
    Manifest(tmp_path, 'raw', ['train']).begin('train', before)
    with pytest.raises(InputError) as caught:
        Manifest(tmp_path, 'raw', ['train']).begin('train', dict(window=4, files={'a.tif': 1, 'b.tif': 3, 'c.tif': 4}))
    assert "with {'files': {'b.tif': 2}}, not with {'files': {'b.tif': 3, 'c.tif': 4}};" in str(caught.value)
    assert 'window' not in str(caught.value)
    with pytest.raises(InputError, match=r'another source \(raw: train\), this run makes .toy.'):
        Manifest(tmp_path, 'toy', ['train'])


def test_a_run_killed_in_its_first_write_is_started_again(tmp_path):
    (tmp_path / '.manifest.json.77.part').write_bytes(b'half')
    Manifest(tmp_path, 'raw', ['train']).begin('train', {})
    assert [path.name for path in tmp_path.iterdir()] == ['manifest.json']


def test_leftovers_are_looked_for_once(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr('data_prep._files.remove_leftovers', looked.append)
    manifest = Manifest(tmp_path, 'raw', ['train', 'val'])
    for part in ('train', 'val', 'train'):
        manifest.begin(part, {})
    assert looked == [tmp_path]


def test_overwrite_removes_only_the_parts_of_this_run(tmp_path):
    for part in ('train', 'val'):
        (tmp_path / part).mkdir()
        (tmp_path / part / 'x.png').write_bytes(b'x')
    Manifest(tmp_path, 'raw', ['train'], overwrite=True).begin('train', {})
    assert not (tmp_path / 'train').exists()
    assert (tmp_path / 'val' / 'x.png').exists()


def test_part_without_a_record_is_refused(tmp_path):
    Manifest(tmp_path, 'raw', ['train']).begin('train', {})
    (tmp_path / 'val').mkdir()
    with pytest.raises(InputError, match=r"part 'val' is there already and is not of this program"):
        Manifest(tmp_path, 'raw', ['val']).begin('val', {})


@pytest.mark.parametrize('text', ['', '[]', '{"parts": {"train": 1}}', '{"name": "my web app"}'])
def test_foreign_manifest_is_named(tmp_path, text):
    (tmp_path / 'manifest.json').write_text(text)
    with pytest.raises(DataError, match=r'manifest\.json: not a manifest of this program'):
        Manifest(tmp_path, 'raw', ['train'], overwrite=True)
    assert (tmp_path / 'manifest.json').read_text() == text


def test_manifest_in_place_of_a_folder(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match='a folder is due, this is a file'):
        Manifest(tmp_path / 'file', 'raw', ['train'])


def double(number: int) -> int:
    if number == 13:
        raise DataError('thirteen')
    return 2 * number


@pytest.mark.parametrize('workers', [1, 2])
def test_results_come_in_order_and_errors_pass_through(workers):
    assert list(map_jobs(double, range(12), workers)) == list(range(0, 24, 2))
    with pytest.raises(DataError, match='thirteen'):
        list(map_jobs(double, range(20), workers))


def test_jobs_are_taken_only_as_they_are_needed():
    taken = []

    def jobs():
        for number in range(100):
            taken.append(number)
            yield number

    results = map_jobs(abs, jobs(), 2, chunks_ahead=2)
    assert next(results) == 0
    assert len(taken) <= 5
    results.close()


def test_threads_are_told_to_stop():
    stop, started = threading.Event(), threading.Event()

    def work(job):
        if job == 0:
            started.wait(30)
            raise DataError('torn')
        started.set()
        assert stop.wait(30)

    began = time.monotonic()
    with pytest.raises(DataError, match='torn'):
        list(map_jobs(work, range(2), 2, threads=True, stop=stop.set))
    assert time.monotonic() - began < 20
    assert list(map_jobs(lambda job: 2 * job, range(9), 3, threads=True)) == list(range(0, 18, 2))


def test_number_of_workers():
    assert check_workers(None) >= 1
    assert check_workers(3) == 3
    with pytest.raises(ConfigError, match='--workers 0'):
        check_workers(0)


def test_bad_input_is_one_line_and_other_errors_keep_their_traceback(capsys):
    def bad_input():
        raise DataError('x.png: torn')

    def bug():
        raise TypeError('bug')

    def stopped():
        raise KeyboardInterrupt

    assert run_main(bad_input) == 2
    assert capsys.readouterr().err == 'error: x.png: torn\n'
    assert run_main(stopped) == 130
    assert run_main(lambda: 1) == 1
    with pytest.raises(TypeError):
        run_main(bug)


def test_no_script_imports_torch():
    names = sorted(path.stem for path in (ROOT / 'data_prep').glob('*.py') if path.stem != '__init__')
    assert {'aras400k', 'make_toy', 'verify'} <= set(names)
    imports = '; '.join(f'import data_prep.{name}' for name in names)
    code = f'{imports}; import sys, json; print(json.dumps(sorted(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert 'rasterio' in loaded
    assert not {'torch', 'mmseg', 'mmengine', 'mmcv'} & set(loaded)
