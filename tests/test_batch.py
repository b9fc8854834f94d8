"""Batches as they meet the world: killed, started again, in several processes, on disks that are full, with odd names."""
import contextlib, hashlib, io, json, os, shutil, signal, subprocess, sys, time
import numpy as np
import pytest
from hqgnet_nb.core import list_images, read_image, write_image

ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONUNBUFFERED': '1'}

def start(*words, **env):
    "A process of the command line"
    return subprocess.Popen([sys.executable, '-m', 'hqgnet_nb.cli', *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**ENV, **env})

def here(*words):
    "(code, stdout, stderr) of the command in this process"
    from hqgnet_nb.cli import main
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err: code = main([*map(str, words)])
    return code, out.getvalue(), err.getvalue()

@pytest.fixture(scope='module')
def ward(tmp_path_factory):
    "Forty images in two folders, and one that is broken"
    d, gen = tmp_path_factory.mktemp('ward'), np.random.default_rng(0)
    for k in range(40): write_image(d/f'bed {k % 2}'/f'{k:03d}.png', np.kron(gen.integers(20, 200, (12, 12, 3)), np.ones((12, 12, 1))).astype(np.uint8))
    (d/'bed 1/broken.png').write_bytes(b'no picture')
    return d

@pytest.fixture(scope='module')
def whole(ward, tmp_path_factory):
    "The same batch in one go"
    out = tmp_path_factory.mktemp('whole')/'out'; code, text, _ = here('enhance', 'fundus-tiny', ward, out, '--device', 'cpu')
    assert code == 1 and text.startswith('40 images'); return out

def state(out):
    "What a batch has made, but for its manifests"
    made = [p for p in out.rglob('*') if p.is_file() and p.suffix not in ('.jsonl', '.html')]
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in made}

def killed_after(p, out, n):
    "Kill a process as soon as its folder holds `n` images; the count then"
    end = time.time() + 120
    while p.poll() is None and len(list(out.rglob('[!.]*.png'))) < n and time.time() < end: time.sleep(.005)
    p.send_signal(signal.SIGKILL); p.communicate()
    return len(list(out.rglob('[!.]*.png')))

def test_killed_and_started_again(ward, whole, tmp_path):
    "Whatever the moment: no half image, nothing twice, and in the end the same bytes"
    out = tmp_path/'out'; n = [killed_after(start('enhance', 'fundus-tiny', ward, out, '--device', 'cpu'), out, n) for n in (3, 12)]
    assert 3 <= n[0] <= n[1] < 40, n
    for f in list_images(out): assert read_image(f).shape == (144, 144, 3)
    lines = [l for l in (out/'manifest_0.jsonl').read_text().splitlines() if '"done"' in l]; before = {f: f.stat().st_mtime_ns for f in list_images(out)}
    (out/'bed 0/.000.abcdefgh.png').write_bytes(b'left over'); (out/'manifest_0.jsonl').open('a').write('{"file": "bed 0/00')
    code, text, err = here('enhance', 'fundus-tiny', ward, out, '--device', 'cpu')
    assert code == 1 and text.startswith('40 images') and f'{len(lines)} of 41 images were done before' in err and 'broken.png' in err
    assert state(out) == state(whole)
    kept = {out/json.loads(l)['to'] for l in lines}; assert len(kept) == len(lines) and all(f.stat().st_mtime_ns == before[f] for f in kept), 'not done again'

def test_two_processes_one_killed(ward, whole, tmp_path):
    "Each file once, whoever dies; the merged manifest has one line for each"
    out = tmp_path/'out'; words = ('enhance', 'fundus-tiny', ward, out, '--device', 'cpu', '--report')
    a, b = (start(*words, RANK=str(k), WORLD_SIZE='2') for k in (0, 1))
    killed_after(b, out, 4); text, err = a.communicate(timeout=300); assert a.returncode in (0, 1) and 'Traceback' not in err
    assert 'no report yet' in err and not (out/'report.html').exists()
    code, _, _ = here('merge', out); assert code == 1
    b = start(*words, RANK='1', WORLD_SIZE='2'); text, err = b.communicate(timeout=300); assert 'were done before' in err or b.returncode in (0, 1), err
    assert state(out) == state(whole)
    lines = [json.loads(l) for p in sorted(out.glob('manifest_*.jsonl')) for l in p.read_text().splitlines() if '"done"' in l]
    assert len(lines) == 40 == len({l['file'] for l in lines}), 'each file once'
    page = (out/'report.html').read_text(); assert '40 enhanced, 1 failed, 0 still to do, of 41' in page and page.count('<img') >= 32
    code, text, _ = here('merge', out); assert code == 1 and '40 of 41 images done, 1 failed, 0 still to do' in text
    assert [json.loads(l)['file'] for l in (out/'manifest.jsonl').read_text().splitlines()[2:]] == [f.relative_to(ward).as_posix() for f in list_images(ward)]

def test_no_names_of_patients_and_no_paths(tmp_path):
    "What is written holds names relative to the folder at most; odd names do not break lines; quiet names none"
    src, out, img = tmp_path/'Meier Anna 1960', tmp_path/'out', np.full((40, 40, 3), 90, np.uint8)
    for name in ('a\nb.png', '\U0001f600.png', 'plain.png'): write_image(src/name, img)
    (src/'bad\nname.png').write_bytes(b'x'); (src/'worse \U0001f600.png').write_bytes(b'x')
    code, text, err = here('enhance', 'fundus-tiny', src, out, '--device', 'cpu', '--report')
    assert code == 1 and text.startswith('3 images') and 'bad\\nname.png' in err and len(err.splitlines()) == 3
    assert 'Meier' not in err
    made = ''.join(p.read_text() for p in out.rglob('*') if p.suffix in ('.json', '.jsonl', '.html')); assert str(tmp_path) not in made and 'Meier' not in made
    code, text, err = here('enhance', 'fundus-tiny', src, out, '--device', 'cpu', '--quiet-names', '--report')
    key = err.split('file ')[1][:10]; assert 'name.png' not in err + (out/'report.html').read_text() and key in (out/'manifest_0.jsonl').read_text()

def test_a_full_disk_ends_the_batch_with_a_line(ward, tmp_path, monkeypatch):
    "No thousand failures; what was done stays, and the same command goes on"
    import hqgnet_nb.core as core
    out, replace, left = tmp_path/'out', os.replace, [8]
    def full(a, b):
        left[0] -= 1
        if left[0] < 0: raise OSError(28, 'No space left on device')
        return replace(a, b)
    monkeypatch.setattr(core.os, 'replace', full)
    code, text, err = here('enhance', 'fundus-tiny', ward/'bed 0', out, '--device', 'cpu')
    assert code == 2 and text == '' and len(err.splitlines()) == 1 and 'No space left' in err and 'goes on' in err and not [p for p in out.rglob('.*')]
    monkeypatch.undo(); assert here('enhance', 'fundus-tiny', ward/'bed 0', out, '--device', 'cpu')[1].startswith('20 images')

def test_a_folder_that_cannot_be_written(ward, tmp_path):
    (tmp_path/'out').mkdir(); (tmp_path/'out/manifest_0.jsonl').mkdir()
    code, text, err = here('enhance', 'fundus-tiny', ward, tmp_path/'out', '--device', 'cpu')
    assert code == 2 and len(err.splitlines()) == 1 and 'cannot' in err
    shutil.rmtree(tmp_path/'out')
