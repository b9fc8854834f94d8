"""Killed at random moments of time (some in the gate, 50 trainings and 50 batches by `make stress`), and then the same command again: nothing is lost,
nothing is there twice, no file is half. What happens at chosen moments, and to a training on a full disk, is in test_reliability."""
import contextlib, json, multiprocessing, os, resource, shutil, signal, subprocess, time
from pathlib import Path
import numpy as np, pytest, torch
from hqgnet_nb.core import read_image, rng, write_image
from hqgnet_nb.generator import HQGNet, save_net
from conftest import noted
from test_resume import rows

STRESS = os.environ.get('HQGNET_STRESS')
STEPS, IMAGES = 60, 16            # validations, and with them checkpoints, come every 20 steps

# what runs in a process of its own --------------------------------------------------------------------------------------------

def command(words, log, before=None, *args):
    "`hqgnet` with these words; what it says goes into a file"
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    import torch; torch.set_num_threads(1)
    from hqgnet_nb.cli import main
    if before: globals()[before](*args)
    with open(log, 'w') as f, contextlib.redirect_stdout(f), contextlib.redirect_stderr(f): code = main([*map(str, words)])
    os._exit(code)

def small_files(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

def dies_writing(n):
    "Killed when file number n is written and not yet in its place"
    left, put = [n], os.replace
    def replace(*args):
        left[0] -= 1
        if not left[0]: os.kill(os.getpid(), signal.SIGKILL)
        put(*args)
    os.replace = replace

@pytest.fixture(scope='module')
def start():
    "Begins a command in a fresh process, forked from one that has imported everything already"
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['hqgnet_nb.train', 'hqgnet_nb.cli', 'hqgnet_nb.batch', 'hqgnet_nb.summary'])
    def begin(words, log, *more): p = context.Process(target=command, args=(words, log, *more)); p.start(); return p
    return begin

def done(p, log, code=0):
    "Waits for the end; the words of the command"
    p.join(900); assert p.exitcode == code, (p.exitcode, Path(log).read_text() if Path(log).exists() else ''); return Path(log).read_text()

def killed(p, moment):
    "Killed at a moment, seconds; False where it had ended before"
    p.join(moment); alive = p.is_alive()
    if alive: p.kill()
    p.join(); return alive

def hidden(folder): return [p.name for p in folder.rglob('.*')]


# training -------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def eyes(tmp_path_factory):
    from hqgnet_nb.degrade import degrade_folder
    from hqgnet_nb.phantoms import write_phantoms
    d = tmp_path_factory.mktemp('eyes')
    write_phantoms(d/'hq', 'fundus', 6, 64, 0); degrade_folder(d/'hq/images', d/'lq', 'fundus', 0)
    return d

def training(eyes, run): return 'train', '--lq', eyes/'lq', '--hq', eyes/'hq/images', '--out', run, '--steps', STEPS, '--size', 64, '--seed', 3, \
        '--device', 'cpu'

@pytest.fixture(scope='module')
def whole(eyes, start):
    "A run without interruption, and its seconds"
    start(('--version',), eyes/'log').join(120)                 # the server of processes has imported now
    t = time.time(); done(start(training(eyes, eyes/'whole'), eyes/'log'), eyes/'log'); return eyes/'whole', time.time() - t

def test_a_training_killed_at_any_moment_ends_in_the_same_bits(eyes, whole, start, tmp_path):
    (whole, seconds), n, kills, runs, at = whole, 50 if STRESS else 2, 0, 0, {}
    gen, log = rng(0, 'kill training'), tmp_path/'log'
    while kills < n:
        run = tmp_path/f'run{runs}'; runs += 1; sittings = 0
        while True:
            resume = ['--resume'] if (run/'checkpoint.pt').exists() else []
            p = start((*training(eyes, run), *resume), log)
            if sittings < 3 and kills < n:
                if killed(p, float(gen.uniform(.02, 1.1*seconds))):
                    kills += 1; sittings += 1
                    step = torch.load(run/'checkpoint.pt', weights_only=True)['step'] if (run/'checkpoint.pt').exists() else 0
                    at[step] = at.get(step, 0) + 1
                    continue
            said = done(p, log)
            break
        assert (run/'model.safetensors').read_bytes() == (whole/'model.safetensors').read_bytes(), (runs, said)
        a, b = (json.loads((r/'config.json').read_text()) for r in (run, whole)); a.pop('seconds'); b.pop('seconds')
        assert a == b and rows(run) == rows(whole), 'the log has no gap and nothing twice'
        assert not hidden(run) and sorted(p.name for p in run.rglob('*')) == sorted(p.name for p in whole.rglob('*'))
        shutil.rmtree(run)
    noted(f'Training: {kills} kills in {runs} runs of {STEPS} steps ({seconds:.0f} s without a kill), each ended in the same bits; '
          'how often the checkpoint was at which step then: ' + ', '.join(f'{s}: {k}' for s, k in sorted(at.items())))


# batches --------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def batch(tmp_path_factory, start):
    "A folder of images, one of them broken, what comes of it, and the seconds that takes"
    d, gen = tmp_path_factory.mktemp('batch'), np.random.default_rng(0)
    torch.manual_seed(0); save_net(HQGNet(3, (4, 4, 8, 8), (4, 4, 8, 8), z_dim=8, y_dim=4), d/'run', size=32)
    for k in range(IMAGES): write_image(d/'in'/f'{k % 3}'/f'{k:02d}.png', gen.integers(20, 200, (int(gen.integers(40, 70)), 64, 3)).astype(np.uint8))
    (d/'in/0/broken.png').write_bytes(b'no')
    start(('info', d/'run'), d/'log').join(120); t = time.time(); said = done(start(enhance(d, d/'whole'), d/'log'), d/'log', 1)
    assert 'broken.png' in said and f'{IMAGES} images' in said
    return d, time.time() - t

def enhance(d, out): return 'enhance', d/'run', d/'in', out, '--device', 'cpu', '--names'

def pictures(out): return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob('*.png') if not p.name.startswith('.')} if out.exists() else {}

def same(out, whole):
    assert pictures(out) == pictures(whole) and len(pictures(whole)) == IMAGES
    assert not hidden(out), 'nothing half-written is left'
    assert {p.relative_to(out) for p in out.rglob('*')} == {p.relative_to(whole) for p in whole.rglob('*')}
    for p in out.rglob('*.json'): json.loads(p.read_text())
    return True

def test_a_batch_killed_at_any_moment_ends_in_the_same_files(batch, start, tmp_path):
    (d, seconds), n, gen, log, there = batch, 50 if STRESS else 3, rng(0, 'kill batch'), tmp_path/'log', []
    whole, k = pictures(d/'whole'), 0
    while k < n:
        out = tmp_path/f'out{k}'
        if not killed(start(enhance(d, out), log), float(gen.uniform(.02, seconds))): shutil.rmtree(out); continue
        k += 1; half = pictures(out); there.append(len(half)); assert all(whole[name] == data for name, data in half.items()), 'what is there is whole'
        done(start(enhance(d, out), log), log, 1); assert same(out, d/'whole'); shutil.rmtree(out)
    noted(f'Batch: {n} kills of a batch of {IMAGES} images ({seconds:.0f} s), each ended in the same files; '
          f'images there at that moment: {min(there)} to {max(there)}, {sum(0 < k < IMAGES for k in there)} times neither none nor all')

@pytest.mark.parametrize('n', [1, 2, 9])
def test_a_batch_killed_between_writing_and_placing(n, batch, start, tmp_path):
    d, _ = batch; out, log = tmp_path/'out', tmp_path/'log'; p = start(enhance(d, out), log, 'dies_writing', n); p.join(900)
    assert p.exitcode == -signal.SIGKILL and hidden(out), 'something half-written is there'
    done(start(enhance(d, out), log), log, 1); assert same(out, d/'whole')

def one_line_each(said, word, out):
    assert 'Traceback' not in said and any(word in l for l in said.splitlines()), said
    assert not hidden(out) and all(read_image(p).size for p in out.rglob('*.png')), 'no half file'

def test_a_batch_on_a_full_disk(batch, start, tmp_path):
    d, _ = batch; disk = tmp_path/'disk'; disk.mkdir(); log = tmp_path/'log'
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=120k', 'tmpfs', disk]
    if not shutil.which('mount') or subprocess.run(mount, capture_output=True).returncode: pytest.skip('no right to mount')
    try:
        p = start(enhance(d, disk/'out'), log); p.join(900); assert p.exitcode in (1, 2)
        one_line_each(log.read_text(), 'No space left', disk/'out')
        n = len(pictures(disk/'out')); assert 0 < n < IMAGES
        subprocess.run(['mount', '-o', 'remount,size=64m', disk], check=True)
        done(start(enhance(d, disk/'out'), log), log, 1); assert same(disk/'out', d/'whole')
    finally: subprocess.run(['umount', disk], check=True)

def test_a_batch_whose_files_may_not_grow(batch, start, tmp_path):
    d, _ = batch; log = tmp_path/'log'
    p = start(enhance(d, tmp_path/'out'), log, 'small_files', 11_000); p.join(900); assert p.exitcode in (1, 2)
    one_line_each(log.read_text(), 'File too large', tmp_path/'out')
    done(start(enhance(d, tmp_path/'out'), log), log, 1); assert same(tmp_path/'out', d/'whole')
