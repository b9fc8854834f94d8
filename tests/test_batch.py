"""Batches as they meet the world: killed, started again, in several processes, on disks that are full, with odd names."""
import contextlib, hashlib, io, json, os, shutil, signal, subprocess, sys, time
import numpy as np
import pytest
from hqgnet_nb.core import list_images, read_image, to_uint, write_image

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
    made = [p for p in out.rglob('*') if p.is_file() and p.suffix not in ('.jsonl', '.html', '.plan')]
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in made}

def killed_after(p, out, n):
    "Kill a process as soon as its folder holds `n` images; the count then"
    end = time.time() + 1200
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
    code, text, err = here('enhance', 'fundus-tiny', ward, out, '--device', 'cpu', '--names')
    assert code == 1 and text.startswith('40 images') and f'{len(lines)} of 41 images were done before' in err and 'broken.png' in err
    assert state(out) == state(whole)
    kept = {out/json.loads(l)['to'] for l in lines}; assert len(kept) == len(lines) and all(f.stat().st_mtime_ns == before[f] for f in kept), 'not done again'

def test_two_processes_one_killed(ward, whole, tmp_path):
    "Each file once, whoever dies; the merged manifest has one line for each"
    out = tmp_path/'out'; words = ('enhance', 'fundus-tiny', ward, out, '--device', 'cpu', '--report')
    a, b = (start(*words, RANK=str(k), WORLD_SIZE='2') for k in (0, 1))
    killed_after(b, out, 4); text, err = a.communicate(timeout=1200); assert a.returncode in (0, 1) and 'Traceback' not in err
    assert 'no report yet' in err and not (out/'report.html').exists()
    code, _, _ = here('merge', out); assert code == 1
    b = start(*words, RANK='1', WORLD_SIZE='2'); text, err = b.communicate(timeout=1200); assert 'were done before' in err or b.returncode in (0, 1), err
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
    code, text, err = here('enhance', 'fundus-tiny', src, out, '--device', 'cpu', '--names', '--report')
    assert code == 1 and text.startswith('3 images') and 'bad\\nname.png' in err and len(err.splitlines()) == 3
    assert 'Meier' not in err
    made = ''.join(p.read_text() for p in out.rglob('*') if p.suffix in ('.json', '.jsonl', '.html')); assert str(tmp_path) not in made and 'Meier' not in made
    code, text, err = here('enhance', 'fundus-tiny', src, out, '--device', 'cpu', '--quiet-names', '--report')
    key = err.split('file ')[1][:10]; assert 'name.png' not in err + (out/'report.html').read_text() and key in (out/'manifest_0.jsonl').read_text()

QUIET = ['twins', 'place taken', 'guide', 'disk full', 'cannot be placed', 'fell over', 'fell over in planning', 'folder closed', 'one file', 'no image']
@pytest.mark.parametrize('case', QUIET)
def test_quiet_names_whatever_happens(case, tmp_path, monkeypatch):
    "No name of a file or folder in what is said, in the report, or, of guides, in what lies beside the results of others"
    import hqgnet_nb.batch as batch, hqgnet_nb.core as core, hqgnet_nb.manifest as manifest
    from hqgnet_nb.phantoms import phantom
    src, out, guides, img = tmp_path/'in', tmp_path/'out', tmp_path/'Kaiser', np.full((40, 40, 3), 90, np.uint8)
    for n in ('Huber Eva/Meier.png', 'Huber Eva/o\'Neil.png', 'Schmid.png'): write_image(src/n, img)
    (src/'Schmid.Dr Kunz').write_text('x'); (src/('Wagner'*20 + '.png')).write_bytes(b'no picture'); words = ['enhance', 'fundus-tiny', src, out]
    names = {'Huber', 'Meier', 'Neil', 'Schmid', 'Kunz', 'kunz', 'Wagner', 'Kaiser'}; code = 2
    def fails(*args): raise OSError(28 if case == 'disk full' else 27, 'no', str(args[-1]))
    def falls(*args, **kw): raise KeyError(f'{src}/Huber Eva/Meier.png')
    if case == 'twins': write_image(src/'Huber Eva/Meier.jpg', img)
    if case == 'place taken': write_image(out/'Huber Eva/Meier.png', img)
    if case == 'guide':
        write_image(guides/'Kaiser Karl.png', (255*phantom('cornea', 96, 1)['image']).astype(np.uint8)); words += ['--guide', guides]; code = 1
    if case == 'disk full': monkeypatch.setattr(core.os, 'replace', fails)
    if case == 'cannot be placed':
        monkeypatch.setattr(core.os, 'replace', lambda a, b: fails(a, b) if str(b).endswith('.png') else os.rename(a, b)); code = 1
    if case == 'fell over': monkeypatch.setattr(batch, 'score_pair', falls); code = 1
    if case == 'fell over in planning': monkeypatch.setattr(batch, 'left_out', falls); code = 3
    if case == 'folder closed':
        look = os.scandir; code = 1
        monkeypatch.setattr(core.os, 'scandir', lambda p: fails(p) if str(p).endswith('Huber Eva') else look(p))
    if case == 'one file': words[2], code = src/('Wagner'*20 + '.png'), 2
    if case == 'no image': words[2], code = src/'Schmid.Dr Kunz', 2
    monkeypatch.chdir(tmp_path); words = [w.relative_to(tmp_path) if hasattr(w, 'parts') else w for w in words]
    got, text, err = here(*words, '--device', 'cpu', '--quiet-names', *([] if 'one' in case or code > 1 else ['--report'])); assert got == code, err
    said = text + err + ''.join(p.read_text() for p in out.rglob('report.html')); assert not {n for n in names if n in said}, said
    assert code != 2 or case == 'disk full' or len(err.splitlines()) == 1, err
    assert code != 1 or 'file ' in err, err
    if case == 'guide':
        made = [p.read_text() for p in out.rglob('*.json*')]; assert len(made) > 4 and not any('Kaiser' in m for m in made) and 'GUIDE' in err
    monkeypatch.undo()
    if case == 'guide':                                         # names shown or not, the work is the same
        assert here(*words[:2], src, out, '--device', 'cpu', '--guide', guides)[2].count('3 of 4 images were done before') == 1 and manifest.read_manifests(out)
    if code == 3: assert 'KeyError' in err and 'INPUT' in err or 'file ' in err

def test_what_is_half_there_is_no_input(tmp_path):
    "Names of downloads that are not done, of this program's own temporary files, and what other programs hide"
    src, out, img = tmp_path/'in', tmp_path/'out', np.full((40, 40, 3), 90, np.uint8); write_image(src/'half.png', img); whole = (src/'half.png').read_bytes()
    for n in ('a.png.part', 'b.dcm.part', 'c.png.half', 'd.png.crdownload', 'e.png~', '.f.abcdefgh.png', '.hidden/g.png', 'h.part'):
        (src/n).parent.mkdir(exist_ok=True); (src/n).write_bytes(whole if n[0] != 'b' else bytes(128) + b'DICM')
    code, text, err = here('enhance', 'fundus-tiny', src, out, '--device', 'cpu', '--names')
    assert code == 0 and text.startswith('1 image in') and '3 .part' in err, err
    assert [p.name for p in list_images(out)] == ['half.png']

def test_a_living_process_keeps_its_files(ward, tmp_path):
    "A batch begun in other parts than one that still runs takes nothing from it; what a dead one left goes, of the report and of a single file too"
    from hqgnet_nb.core import atomic_path
    out = tmp_path/'out'; left = [out/'bed 0/.000.abcdefgh.png', out/'.manifest.abcdefgh.jsonl', out/'.report.abcdefgh.html']
    (out/'bed 0').mkdir(parents=True)
    for p in left: p.write_bytes(b'half')
    with atomic_path(out/'bed 0/002.png') as tmp:
        tmp.write_bytes(b'at work'); code, _, err = here('enhance', 'fundus-tiny', ward, out, '--device', 'cpu'); assert code == 1
        assert tmp.read_bytes() == b'at work' and not any(p.exists() for p in left)
    one = tmp_path/'one'; one.mkdir(); (one/'.000.abcdefgh.png').write_bytes(b'half')
    assert here('enhance', 'fundus-tiny', ward/'bed 0/000.png', one, '--device', 'cpu')[0] == 0 and not [p for p in one.iterdir() if p.name[0] == '.']

def test_odd_places(ward, tmp_path):
    "Braces in a folder's name, a name too long for what it becomes, a loop of links in place of the output"
    img = ward/'bed 0/000.png'; out = tmp_path/'o {1} {n}'; code, text, err = here('enhance', 'fundus-tiny', img, out, '--device', 'cpu')
    assert (code, text, err) == (0, f'1 image in {out}\n', '') and read_image(out/'000.png').shape == (144, 144, 3)
    from hqgnet_nb.document import _write_dicom
    src = tmp_path/'in'; src.mkdir(); _write_dicom(src/'x', 8*read_image(img)[..., 0].astype(np.int16)); (src/'x').rename(src/('n'*253)); shutil.copy(img, src)
    code, text, err = here('enhance', 'fundus-tiny', src, tmp_path/'out', '--device', 'cpu')
    assert code == 1 and text.startswith('1 image in') and 'too long' in err
    for n in ('loop', 'x'*300):
        if n == 'loop': (tmp_path/n).symlink_to(n)
        code, text, err = here('enhance', 'fundus-tiny', src, tmp_path/n, '--device', 'cpu')
        assert code == 2 and len(err.splitlines()) == 1 and 'choose another' in err

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

def read_only(monkeypatch, out, after):
    "From the file after so many on, the disk of `out` is read-only, whoever asks: what the operating system says of opening for writing"
    import builtins, errno
    real, plain, left = os.open, builtins.open, [after]
    def refuse(path):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(str(out)) and (left.append(left.pop() - 1), left[0])[1] < 0:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
    def low(path, flags, *args, **kw):
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR): refuse(path)
        return real(path, flags, *args, **kw)
    def high(path, mode='r', *args, **kw):
        if set(mode) & set('wax+'): refuse(path)
        return plain(path, mode, *args, **kw)
    monkeypatch.setattr(os, 'open', low); monkeypatch.setattr(builtins, 'open', high)

def test_a_read_only_disk_ends_the_batch_with_a_line(ward, tmp_path, monkeypatch):
    "From the start, or half-way: one line that says what to do; what was done stays and is not done again"
    out, words = tmp_path/'out', ('enhance', 'fundus-tiny', ward/'bed 0', tmp_path/'out', '--device', 'cpu')
    read_only(monkeypatch, out, 0); code, text, err = here(*words)
    assert code == 2 and text == '' and len(err.splitlines()) == 1 and 'Read-only' in err and 'another folder' in err
    monkeypatch.undo(); read_only(monkeypatch, out, 12); code, text, err = here(*words)                     # the manifest, then files one by one
    assert code == 2 and text == '' and len(err.splitlines()) == 1 and 'Read-only' in err and 'make the disk writable, and the same command goes on' in err
    assert not [p for p in out.rglob('.*')]; monkeypatch.undo()
    kept = {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in list_images(out)}
    lines = [l for l in (out/'manifest_0.jsonl').read_text().splitlines() if '"done"' in l]
    assert 0 < len(lines) <= len(kept) < 20
    code, text, err = here(*words); assert code == 0 and text.startswith('20 images') and f'{len(lines)} of 20 images were done before' in err
    done = {out/json.loads(l)['to'] for l in lines}
    assert all(f.read_bytes() == kept[f][0] for f in kept) and all(f.stat().st_mtime_ns == kept[f][1] for f in done)

def test_films_and_volumes_among_images(tmp_path, monkeypatch):
    "A NIfTI volume and a film go through a folder: sidecars, done when done, and done again where their line is gone, to the same pixels"
    import av, nibabel as nib
    src, out, gen = tmp_path/'in', tmp_path/'out', np.random.default_rng(0)
    frames = [np.kron(gen.integers(20, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(5)]
    write_image(src/'still.png', frames[0])
    nib.save(nib.Nifti1Image(np.stack([f[..., 0] for f in frames], -1).astype(np.int16), np.diag([.5, .5, 2, 1])), src/'scan.nii.gz')
    with av.open(str(src/'walk.mkv'), 'w') as c:
        s = c.add_stream('ffv1', rate=5); s.width = s.height = 64; s.pix_fmt = 'bgr0'
        for f in frames: c.mux(s.encode(av.VideoFrame.from_ndarray(f, 'rgb24')))
        c.mux(s.encode())
    from hqgnet_nb.video import _Video
    looks, measure = [], _Video._measure; monkeypatch.setattr(_Video, '_measure', lambda self: (looks.append(self.path), measure(self))[1])
    words = ('enhance', 'fundus-tiny', src, out, '--device', 'cpu'); code, text, err = here(*words); assert code == 0 and text.startswith('3 images'), err
    assert looks == [src/'walk.mkv'], 'gone through once: its output has its name from the header'
    made = {json.loads(l)['file']: json.loads(l)['to'] for l in (out/'manifest_0.jsonl').read_text().splitlines() if '"done"' in l}
    assert set(made) == {'still.png', 'scan.nii.gz', 'walk.mkv'} and made['scan.nii.gz'] == 'scan.nii.gz'
    volume = nib.load(out/'scan.nii.gz'); assert volume.shape == (64, 64, 5) and np.allclose(volume.affine, np.diag([.5, .5, 2, 1]))
    def pixels():
        with av.open(str(out/made['walk.mkv'])) as c: film = [f.to_ndarray(format='rgb24') for f in c.decode(video=0)]
        return np.asarray(nib.load(out/'scan.nii.gz').dataobj), np.stack(film)
    first = pixels(); assert first[1].shape == (5, 64, 64, 3) and (first[1] != np.stack(frames)).any()
    for p in out.rglob('*.json'):
        d = json.loads(p.read_text()); f = out/d['output']['file']
        assert d['output']['sha256'] == hashlib.sha256(f.read_bytes()).hexdigest() and d['output']['bytes'] == f.stat().st_size and 'structure' in d['scores']
    assert len(list(out.rglob('*.json'))) == 3
    told = {d['input']['file']: d for d in (json.loads(p.read_text()) for p in out.rglob('*.json'))}
    scan, walk, still = (told[f] for f in ('scan.nii.gz', 'walk.mkv', 'still.png')); size = dict(shape=[64, 64, 5], spacing=[.5, .5, 2.])
    assert scan['input'].items() >= dict(kind='nifti', depth=16, type='int16', frames=5, **size).items(), 'what is stored, not what is shown of it'
    assert walk['input'].items() >= dict(kind='video', depth=8, frames=5, fps=5., shape=[64, 64, 3]).items()
    assert scan['scored_frame'] == walk['scored_frame'] == 2
    assert walk['flicker'].keys() == {'input', 'result', 'added', 'limit', 'within'} and 'flicker' not in scan and 'flicker' not in still
    seen = walk['flicker']['input']; assert 0 < seen['median'] <= seen['95 %'] <= seen['highest'] < 255
    assert 'scored_frame' not in still and still['input']['depth'] == 8 and still['input']['shape'] == [64, 64, 3]
    times = lambda: {f: (out/to).stat().st_mtime_ns for f, to in made.items()}
    before = times(); code, text, err = here(*words); assert code == 0 and '3 of 3 images were done before' in err and times() == before
    book = out/'manifest_0.jsonl'; lines = [l for l in book.read_text().splitlines() if 'walk.mkv' not in l and 'scan.nii' not in l]
    book.write_text('\n'.join(lines) + '\n')
    code, text, err = here(*words); assert code == 0 and text.startswith('3 images') and '1 of 3 images were done before' in err
    after = times(); assert {f for f in made if after[f] != before[f]} == {'scan.nii.gz', 'walk.mkv'}
    assert all(np.array_equal(a, b) for a, b in zip(pixels(), first))

def test_what_a_file_is_its_bytes_say_in_a_batch_too(tmp_path):
    "A DICOM file called .png comes out as DICOM, a PNG called .dcm as PNG, volumes and films too; sidecars say what is stored, and name nobody"
    import av, nibabel as nib
    from fractions import Fraction
    from hqgnet_nb.document import _write_dicom
    src, out, gen = tmp_path/'in', tmp_path/'out', np.random.default_rng(0)
    img = np.kron(gen.integers(20, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    src.mkdir(); _write_dicom(src/'chest.png', 8*img[..., 0].astype(np.int16), PatientName='Meier^Anna', PixelSpacing=[.5, .75])
    write_image(src/'eye.png', img); (src/'eye.png').rename(src/'eye.dcm')
    nib.save(nib.Nifti1Image(np.stack([img[..., 0]]*2, -1), np.eye(4)), src/'v.nii.gz'); (src/'v.nii.gz').rename(src/'v.tif')
    with av.open(str(src/'talk.mkv'), 'w') as c:
        s, a = c.add_stream('ffv1', rate=5), c.add_stream('pcm_s16le', rate=8000); s.width = s.height = 64; s.pix_fmt = 'bgr0'
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format='s16', layout='mono')
        sound.rate, sound.pts, sound.time_base = 8000, 0, Fraction(1, 8000)
        for p in (*s.encode(av.VideoFrame.from_ndarray(img, 'rgb24')), *s.encode(), *a.encode(sound), *a.encode()): c.mux(p)
    (src/'talk.mkv').rename(src/'talk.jpg'); (src/'no.png').write_bytes(b'no picture')
    code, text, err = here('enhance', 'fundus-tiny', src, out, '--device', 'cpu', '--names')
    assert code == 1 and text.startswith('4 images') and err.count('cannot be read') == 1 and 'no.png' in err, err
    assert err.count('films whose sound was left out: 1') == 1
    assert sorted(p.name for p in out.iterdir() if p.suffix not in ('.json', '.jsonl', '.plan')) == ['chest.dcm', 'eye.png', 'talk.mkv', 'v.nii.gz']
    assert (out/'chest.dcm').read_bytes()[128:132] == b'DICM' and read_image(out/'eye.png').shape == (64, 64, 3)
    assert nib.load(out/'v.nii.gz').shape == (64, 64, 2)
    told = {p.stem: json.loads(p.read_text()) for p in out.glob('*.json')}; known = {k: d['input'] for k, d in told.items()}
    assert known['chest'].items() >= dict(file='chest.png', kind='dicom', depth=12, signed=True, frames=1, spacing=[.5, .75]).items()
    assert known['talk']['notes'] == ['sound is left out'] and known['v.nii']['depth'] == 8 and 'kind' not in known['eye']
    assert told['chest']['scored_frame'] == 0 and told['v.nii']['scored_frame'] == 1 and 'Meier' not in json.dumps(told)
    code, text, err = here('enhance', 'fundus-tiny', src, out, '--device', 'cpu'); assert '4 of 5 images were done before' in err

def test_lines_that_lack_something_are_no_lines(ward, tmp_path):
    "A manifest that another program, or a person, has been at: what is not whole is done again, and counted as missing till then"
    for k in range(3): (tmp_path/'in').mkdir(exist_ok=True); shutil.copy(ward/f'bed 0/{2*k:03d}.png', tmp_path/f'in/{k}.png')
    words, book = ('enhance', 'fundus-tiny', tmp_path/'in', tmp_path/'out', '--device', 'cpu'), tmp_path/'out/manifest_0.jsonl'
    assert here(*words)[0] == 0
    kept = [json.loads(l) for l in book.read_text().splitlines()]
    for key in ('status', 'settings', 'bytes_out', 'seconds', 'at'):
        less = [{k: v for k, v in d.items() if k != key} if d.get('file') == '1.png' else d for d in kept]
        book.write_text(''.join(json.dumps(d) + '\n' for d in (*less, dict(batch=dict(at=1)))))
        code, text, err = here('merge', tmp_path/'out'); assert code == 1 and '2 of 3 images done' in text and '1 still to do' in text, key
        (tmp_path/'out/manifest.jsonl').unlink(); code, text, err = here(*words); assert code == 0 and '2 of 3 images were done before' in err, key

def test_sidecars_have_a_place_each(ward, tmp_path):
    "Three outputs of which two have one stem, and the third has a stem that is the name of the first"
    img = read_image(ward/'bed 0/000.png')
    for n in ('a.png', 'a.tif', 'a.png.tif'): write_image(tmp_path/'in'/n, img)
    words = 'enhance', 'fundus-tiny', tmp_path/'in', tmp_path/'out', '--device', 'cpu', '--format', 'same', '--uncertainty'
    code, text, err = here(*words); assert code == 0, err
    for n in ('a.png', 'a.tif', 'a.png.tif'):
        assert json.loads((tmp_path/f'out/{n}.json').read_text())['output']['file'] == n
        assert read_image(tmp_path/f'out/uncertainty/{n}.png').shape[:2] == img.shape[:2]

def test_what_is_counted_is_what_the_last_batch_wants(ward, tmp_path):
    "Inputs that changed between two batches into one folder: nothing counts that is not wanted any more, and what is missing shows"
    src, out = tmp_path/'in', tmp_path/'out'; src.mkdir(); words = ('enhance', 'fundus-tiny', src, out, '--device', 'cpu')
    for k in range(4): shutil.copy(ward/f'bed 0/{2*k:03d}.png', src/f'{k}.png')
    (src/'broken.png').write_bytes(b'no picture'); assert here(*words)[0] == 1
    (src/'broken.png').unlink(); (src/'0.png').unlink(); assert here(*words)[0] == 0                # the failed one has gone, and one that was done
    code, text, err = here('merge', out, '--report')
    assert code == 0 and '3 of 3 images done, 0 failed, 0 still to do' in text and '2 more of earlier inputs' in text, text
    page = (out/'report.html').read_text(); assert '3 enhanced, 0 failed, 0 still to do, of 3' in page and 'broken' not in page
    for k in range(3): shutil.copy(ward/f'bed 0/{2*k:03d}.png', src/f'new {k}.png')
    from hqgnet_nb.manifest import of_shard
    first = sum(of_shard(p.name, (0, 2)) for p in src.glob('new*')); assert here(*words, '--shard', '1/2', '--report')[0] == 0           # one of two processes
    code, text, err = here('merge', out); assert (code == 1) == (first < 3) and f'{3 + first} of 6 images done, 0 failed, {3 - first} still to do' in text, text
    assert here(*words)[0] == 0 and here('merge', out)[0] == 0 and len(list(out.glob('*.plan'))) == 3
    for p in out.glob('*.plan'): p.unlink()                                                       # as an older program left it
    code, text, err = here('merge', out); assert '7 of 6 images done, 1 failed' in text, text

def test_an_input_that_changes_while_it_is_read(ward, tmp_path, monkeypatch):
    "It fails with a line, nothing is written for it or said of it, and the next time it is done"
    import hqgnet_nb.batch as batch
    src, out, real = tmp_path/'in', tmp_path/'out', batch.read_image; src.mkdir(); words = ('enhance', 'fundus-tiny', src, out, '--device', 'cpu')
    for k in range(2): shutil.copy(ward/f'bed 0/{2*k:03d}.png', src/f'{k}.png')
    def read(p):
        x = real(p)
        if p.name == '1.png': write_image(p, 255 - x)
        return x
    monkeypatch.setattr(batch, 'read_image', read); code, text, err = here(*words)
    assert code == 1 and text.startswith('1 image in') and 'was changed while it was read; the same command tries it again' in err, err
    assert not list(out.glob('1.*')); monkeypatch.undo()
    assert here(*words)[0] == 0; line = [l for l in (out/'manifest_0.jsonl').read_text().splitlines() if '"1.png"' in l][-1]
    assert json.loads(line)['sha256'] == hashlib.sha256((src/'1.png').read_bytes()).hexdigest() and (out/'1.png').exists()

def test_a_disk_that_is_full_for_the_manifest(ward, tmp_path, monkeypatch):
    "At its header or at a later line: one clear line, the error of a user, and the file is not left open"
    import gc, warnings
    import hqgnet_nb.batch as batch
    (tmp_path/'a').mkdir(); (tmp_path/'a/manifest_0.jsonl').symlink_to('/dev/full')
    with warnings.catch_warnings():
        warnings.simplefilter('error', ResourceWarning)
        code, text, err = here('enhance', 'fundus-tiny', ward/'bed 0', tmp_path/'a', '--device', 'cpu'); gc.collect()
    assert code == 2 and text == '' and len(err.splitlines()) == 1 and 'No space left' in err and 'goes on' in err, err
    class Later(batch.Manifest):
        def __init__(self, path, header): super().__init__(path, header); self.file.close(); self.file = open('/dev/full', 'ab+', buffering=0)
    monkeypatch.setattr(batch, 'Manifest', Later)
    code, text, err = here('enhance', 'fundus-tiny', ward/'bed 0', tmp_path/'b', '--device', 'cpu')
    assert code == 2 and text == '' and len(err.splitlines()) == 1 and 'No space left' in err and 'goes on' in err, err

def test_a_folder_that_cannot_be_looked_into(ward, tmp_path, monkeypatch):
    "It is a failure of the batch, of its merged sums and of its page, as long as it is closed"
    import hqgnet_nb.core as core
    src, out, look = tmp_path/'in', tmp_path/'out', os.scandir; words = ('enhance', 'fundus-tiny', src, out, '--device', 'cpu', '--quiet-names', '--report')
    for k in range(2): (src/f'bed {k}').mkdir(parents=True); shutil.copy(ward/f'bed 0/{2*k:03d}.png', src/f'bed {k}')
    def closed(p):
        if str(p).endswith('bed 1'): raise PermissionError(13, 'Permission denied')
        return look(p)
    monkeypatch.setattr(core.os, 'scandir', closed); code, text, err = here(*words)
    assert code == 1 and text.startswith('1 image in') and err.count('cannot be looked into (Permission denied)') == 1 and 'bed 1' not in err, err
    assert 'error: 1 of the folders' in err and 'images failed' not in err and 'cannot be looked into' in (out/'report.html').read_text()
    code, text, err = here('merge', out); assert code == 1 and '1 of 1 images done' in text and '1 of the folders' in err, (text, err)
    monkeypatch.undo(); assert here(*words)[0] == 0 and here('merge', out)[0] == 0 and 'looked into' not in (out/'report.html').read_text()
    monkeypatch.setattr(core.os, 'scandir', lambda p: closed('bed 1') if str(p).startswith(str(src)) else look(p))
    code, text, err = here(*words); assert code == 2 and len(err.splitlines()) == 1 and 'INPUT cannot be looked into' in err, err

def test_a_part_of_a_batch_says_so(ward, tmp_path, monkeypatch):
    "The launcher's variables, left over in an environment, make a part of a folder and nothing of a file, but never in silence"
    src = tmp_path/'in'; src.mkdir(); words = ('enhance', 'fundus-tiny', src, tmp_path/'out', '--device', 'cpu')
    for k in range(3): shutil.copy(ward/f'bed 0/{2*k:03d}.png', src/f'{k}.png')
    monkeypatch.setenv('WORLD_SIZE', '2'); from hqgnet_nb.manifest import of_shard
    for k in (0, 1):
        monkeypatch.setenv('RANK', str(k)); n = sum(of_shard(f'{i}.png', (k, 2)) for i in range(3)); code, text, err = here(*words)
        assert code == 0 and f'part {k + 1} of 2: {n} of 3 files' in err and text.startswith(f'{n} image'), err
        code, text, err = here(*words[:2], src/'0.png', tmp_path/'one', '--device', 'cpu'); there = (tmp_path/'one/0.png').exists()
        assert code == 0 and there and ('part 2 of 2: nothing to do' in err if k else 'part 1 of 2: 1 of 1 files' in err), err
    assert len(list_images(tmp_path/'out')) == 3; monkeypatch.undo(); assert 'part' not in here(*words)[2]

class Screen(io.StringIO):
    "A terminal"
    def isatty(self): return True

def test_names_on_a_terminal_and_in_a_log(ward, tmp_path):
    "By themselves names are shown on a terminal and hidden elsewhere; a word changes either; guides are hidden in what is written, always"
    from hqgnet_nb.cli import main
    src = tmp_path/'in'; src.mkdir(); shutil.copy(ward/'bed 0/000.png', src/'Meier.png'); (src/'Huber.png').write_bytes(b'no picture')
    shutil.copy(ward/'bed 0/002.png', tmp_path/'Kaiser.png')
    words = ['enhance', 'fundus-tiny', str(src), str(tmp_path/'out'), '--device', 'cpu', '--guide', str(tmp_path/'Kaiser.png')]
    for stream in (io.StringIO, Screen):
        for more in ([], ['--names'], ['--quiet-names']):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stream()) as err: assert main([*words, *more]) == 1
            said = err.getvalue(); shown = more == ['--names'] or not more and stream is Screen; assert ('Huber' in said) == shown, (stream, more, said)
            assert ('names are hidden' in said) == (not more and not shown) and ('Kaiser' in said) <= shown
        made = ''.join(p.read_text() for p in (tmp_path/'out').rglob('*.json*')); assert 'Huber' in made and 'Kaiser' not in made
        code, text, err = here('enhance', 'fundus-tiny', src/'Huber.png', tmp_path/'one', '--device', 'cpu'); assert code == 2 and 'Huber' not in err, err
        last = err.splitlines()[-1]; assert last.startswith('hqgnet: names are hidden') and 'ask for --names' in last, 'a hash alone helps nobody'
        for more in ('--names', '--quiet-names'):
            assert 'names are hidden' not in here('enhance', 'fundus-tiny', src/'Huber.png', tmp_path/'one', '--device', 'cpu', more)[2]
    code, text, err = here('enhance', 'fundus-tiny', src, tmp_path/'out', '--device', 'cpu', '--strength', '.5')
    assert code == 2 and 'other settings' in err and 'or give --overwrite' in err and 'Meier' not in err and 'ask for --names' in err, err
    code, text, err = here('merge', tmp_path/'out', '--report'); page = (tmp_path/'out/report.html').read_text()
    assert code == 1 and 'Huber' not in text + err and 'Huber' in page

LEARNED = ('--size', 32, '--steps', 1, '--device', 'cpu')
def test_no_command_names_files_in_a_log(tmp_path):
    "Spoiling, training, measuring, comparing: files that are damaged, missing, alone, or of one patient; a hash for each name, unless names are asked for"
    from hqgnet_nb.phantoms import phantom
    eyes, lq, ref, few, far = (tmp_path/n for n in ('Ward', 'lq', 'ref', 'few', 'far')); damaged = ('Huber Eva_3.png', 'Sub Maier/Kunz_3.png')
    for n in ('Huber Eva_1', 'Huber Eva_2', 'Sub Maier/Kunz_1', 'Sub Maier/Kunz_2'):
        img = to_uint(phantom('fundus', 48, len(n))['image'])
        for d in (eyes, lq, ref): write_image(d/f'{n}.png', img)
        write_image(far/f'{n}.png', img//2)
    for n in ('few/Huber Eva_1', 'lq/1', 'alone/Kunz_7', 'good/9'): write_image(tmp_path/f'{n}.png', img)
    (lq/'Link').symlink_to(tmp_path/'alone'); (tmp_path/'both').mkdir(); (tmp_path/'both/Kunz_8.png').symlink_to(ref/'Huber Eva_1.png')
    for d in (eyes, lq): [(d/n).write_bytes(b'no picture') for n in damaged]
    write_image(tmp_path/'taken/Huber Eva_1.png', img); (tmp_path/'torn').mkdir()
    data = ('--lq', lq, '--hq', ref); versus = ('compare', *data, '--test-lq', far, '--out', tmp_path/'c', '--methods', 'no enhancement', '--size', 64)
    said = {}
    for k, (words, code) in enumerate((
            (('degrade', eyes, tmp_path/'spoilt'), 1), (('degrade', eyes/damaged[0], tmp_path/'one'), 2),
            (('train', *data, '--out', tmp_path/'run', *LEARNED), 0),
            (('train', *data, '--out', tmp_path/'run', '--valid-lq', few, '--valid-ref', ref/'Huber Eva_2.png', *LEARNED), 2),
            (('train', *data, '--out', tmp_path/'run', '--valid-lq', few, '--valid-ref', lq/damaged[1], *LEARNED), 2),
            (('evaluate', '--pred', lq, '--ref', few), 0), (('evaluate', '--pred', lq, '--ref', eyes), 1),
            (('evaluate', '--pred', few, '--ref', ref, '--lq', ref/'Sub Maier'), 2),
            (('evaluate', '--pred', few, '--ref', few/'Huber Eva_1.png', '--lq', few), 0),
            (('evaluate', '--pred', few/'Huber Eva_1.png', '--ref', tmp_path/'good'), 2),
            (('train', '--lq', tmp_path/'both', '--hq', ref, '--out', tmp_path/'run', *LEARNED), 2),
            (('degrade', eyes, tmp_path/'taken'), 2), (('degrade', eyes/'Huber Eva_1.png', tmp_path/'taken'), 2),
            ((*versus, '--test-ref', few), 2), ((*versus, '--test-ref', far), 0))):
        for more in ('--quiet-names', '--names', None):
            if more != '--quiet-names' and not code and words[0] == 'train': continue                  # once is enough of what takes long
            for d in tmp_path.glob('run*'): shutil.rmtree(d)
            got, text, err = here(*words, *([more] if more else [])); assert got == code, (words, err)
            named = any(n in text + err for n in ('Huber', 'Kunz', 'Maier', 'Ward', "'1'")); said[k] = said.get(k, False) or named
            assert more == '--names' or not named, (words, text, err)
            assert ('ask for --names' in err) == (more is None and said[k]), err
    assert sum(said.values()) >= 12, ('names are there to be hidden', said)
    err = here('enhance', tmp_path/'torn', lq, tmp_path/'e')[2]
    assert f'{tmp_path}/torn/model.safetensors: not found' in err and 'hidden' not in err, 'what is ours is told'
