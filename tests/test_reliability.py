"""What a training does when the world is unkind: killed at any moment, disk full or read-only, numbers that are no numbers."""
import contextlib, errno, multiprocessing, os, shutil, signal, subprocess
from pathlib import Path
import pytest, torch
from hqgnet_nb.core import rng
from test_resume import rows

STEPS = 12                       # 5 images in batches of 4: 6 epochs
BUDGETS = dict(steps=dict(steps=STEPS), epochs=dict(epochs=STEPS/2))


# what runs in a process of its own --------------------------------------------------------------------------------------------

def train(folder, out, budget, sabotage=None, *args, **more):
    "Train, with a callback that does harm; the error, where there is one, goes into a file"
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    import torch; torch.set_num_threads(1)
    from hqgnet_nb.core import UserError
    from hqgnet_nb.train import train_folders
    cbs = [globals()[sabotage](*args)] if sabotage else []
    try: train_folders(folder/'lq', folder/'hq/images', out, size=32, bar=False, device='cpu', valid_every=3, cbs=cbs, **budget, **more)
    except (UserError, KeyboardInterrupt) as e: out.with_suffix('.error').write_text(str(e))

def at(step, event, do):
    "A callback that does something once, in an event of a step of training"
    from fastai.callback.core import Callback
    class Sabotage(Callback):
        order = 7                                             # after the game and the average, before log and checkpoint
        def __call__(self, name):
            if name == event and self.game.step == step and getattr(self.learn, 'training', False): do()
    return Sabotage()

def kill(step, event): return at(step, event, lambda: os.kill(os.getpid(), signal.SIGKILL))
def term(step): return at(step, 'after_pred', lambda: os.kill(os.getpid(), signal.SIGTERM))

def half_a_checkpoint(step):
    "Killed when half of a checkpoint is on the disk"
    def end(fd): os.ftruncate(fd, os.fstat(fd).st_size//2); os.kill(os.getpid(), signal.SIGKILL)
    return at(step, 'after_step', lambda: setattr(os, 'fsync', end))

def no_space(step):
    "No checkpoint fits any more, but for the folder of temporary files"
    def full(fd):
        if '/.checkpoint.' in os.readlink(f'/proc/self/fd/{fd}'): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return at(step, 'after_step', lambda: setattr(os, 'fsync', full))

def fill(step, folder):
    "A large file takes all the space there is"
    def do():
        with contextlib.suppress(OSError), open(folder/'large', 'wb', buffering=0) as f:
            while f.write(bytes(4096)) == 4096: pass
    return at(step, 'after_step', do)

def read_only(step, folder): return at(step, 'after_step', lambda: subprocess.run(['mount', '-o', 'remount,ro', folder], check=True))


# the tests ------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def start():
    "Runs `train` in a fresh process, forked from one that has imported everything already; returns its exit code"
    context = multiprocessing.get_context('forkserver'); context.set_forkserver_preload(['hqgnet_nb.train'])
    def run(*args, **kwargs):
        p = context.Process(target=train, args=args, kwargs=kwargs); p.start(); p.join(120)
        if p.is_alive(): p.kill(); raise AssertionError('took too long')
        return p.exitcode
    return run

@pytest.fixture(scope='module')
def eyes(tmp_path_factory):
    from hqgnet_nb.degrade import degrade_folder
    from hqgnet_nb.phantoms import write_phantoms
    d = tmp_path_factory.mktemp('eyes')
    write_phantoms(d/'hq', 'fundus', 6, 40, 0); degrade_folder(d/'hq/images', d/'lq', 'fundus', 0)
    return d

@pytest.fixture(scope='module')
def whole(eyes, start):
    "A run without interruption"
    assert start(eyes, eyes/'whole', BUDGETS['steps']) == 0 and not (eyes/'whole.error').exists()
    return eyes/'whole'

def same(run, whole):
    "The same weights to the last bit, and the same log: no gap, nothing twice"
    assert (run/'model.safetensors').read_bytes() == (whole/'model.safetensors').read_bytes()
    assert rows(run) == rows(whole)
    assert [p.name for p in run.iterdir() if p.name.startswith('.')] == [], 'nothing half-written is left'
    return True

def error(run):
    text = run.with_suffix('.error').read_text(); run.with_suffix('.error').unlink()
    assert len(text.splitlines()) == 1, text
    return text

@pytest.mark.parametrize('budget', BUDGETS)
def test_killed_anywhere_and_resumed_ends_in_the_same_bits(budget, eyes, whole, start, tmp_path):
    run, gen = tmp_path/'run', rng(0, 'kill', budget)
    events = ('before_batch', 'after_pred', 'after_backward', 'before_step', 'after_step', 'after_batch')
    steps = sorted(int(s) for s in gen.choice(STEPS, 3, replace=False))
    for k, step in enumerate(steps):
        there = (run/'checkpoint.pt').exists()
        if not there and run.exists(): shutil.rmtree(run)
        assert start(eyes, run, BUDGETS[budget], 'kill', step, events[gen.integers(len(events))], resume=there) == -signal.SIGKILL, (k, step)
        assert not (run/'model.safetensors').exists()
    assert start(eyes, run, BUDGETS[budget], resume=True) == 0 and same(run, whole)

def test_killed_in_the_middle_of_a_checkpoint(eyes, whole, start, tmp_path):
    run = tmp_path/'run'
    assert start(eyes, run, BUDGETS['steps'], 'half_a_checkpoint', 4) == -signal.SIGKILL
    torn = list(run.glob('.checkpoint.*.pt'))
    assert len(torn) == 1 and torn[0].stat().st_size < .6*(run/'checkpoint.pt').stat().st_size, 'one is whole and one is torn'
    assert start(eyes, run, BUDGETS['steps'], resume=True) == 0 and same(run, whole)

def test_a_polite_request_to_end_is_met_after_the_step(eyes, whole, start, tmp_path):
    run = tmp_path/'run'
    assert start(eyes, run, BUDGETS['steps'], 'term', 4) == 0 and 'stopped at step 5' in error(run)
    assert start(eyes, run, BUDGETS['steps'], resume=True) == 0 and same(run, whole)

def brought_to_safety(message, run):
    "The file that the error names, moved to where it says"
    assert 'No space left' in message or 'Read-only' in message, message
    words = message.split(' is in ')[1]; path = Path(words.split(': free')[0])
    assert path.is_file() and f'move it to {run}/checkpoint.pt' in words
    return path

def test_no_space_for_a_checkpoint_loses_nothing(eyes, whole, start, tmp_path):
    run = tmp_path/'run'
    assert start(eyes, run, BUDGETS['steps'], 'no_space', 4) == 0
    message = error(run); assert 'checkpoint.pt' in message and 'state of step 6' in message
    assert torch.load(run/'checkpoint.pt', weights_only=True)['step'] == 3, 'the old one is whole'
    shutil.move(brought_to_safety(message, run), run/'checkpoint.pt'); assert torch.load(run/'checkpoint.pt', weights_only=True)['step'] == 6
    assert start(eyes, run, BUDGETS['steps'], resume=True) == 0 and same(run, whole)

def test_a_log_that_cannot_be_written_ends_the_run(eyes, start, tmp_path):
    run = tmp_path/'run'; run.mkdir(); (run/'history.csv').symlink_to('/dev/full')
    assert start(eyes, run, BUDGETS['steps']) == 0
    message = error(run); assert 'history.csv: cannot be written (No space left on device)' in message
    brought_to_safety(message, run).unlink()                  # some megabytes in the folder of temporary files

def test_no_folder_can_be_made_there(eyes, start, tmp_path):
    (tmp_path/'file').write_text('x'); before = sorted(tmp_path.iterdir())
    for run in (tmp_path/'file', tmp_path/'file'/'a'/'run'):
        from hqgnet_nb.core import UserError
        from hqgnet_nb.train import train_folders
        with pytest.raises(UserError, match='cannot be written there') as e: train_folders(eyes/'lq', eyes/'hq/images', run, steps=2, bar=False)
        assert str(run) in str(e.value)
    assert sorted(tmp_path.iterdir()) == before

@pytest.fixture
def small_disk(tmp_path):
    "Mounts a file system of so many bytes; skips the test where that is not allowed"
    made = []
    def mount(size):
        d = tmp_path/f'disk{len(made)}'; d.mkdir()
        p = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', d], capture_output=True)
        if p.returncode: pytest.skip('no right to mount a file system')
        made.append(d); return d
    if not shutil.which('mount'): pytest.skip('no mount')
    yield mount
    for d in made: subprocess.run(['umount', d], check=True)

def test_a_small_disk_is_seen_at_once(eyes, whole, start, small_disk):
    run = small_disk(2**21)/'run'
    assert start(eyes, run, BUDGETS['steps']) == 0
    assert 'cannot be written there (No space left on device)' in (message := (run.parent/'run.error').read_text()) and str(run) in message
    assert not run.exists() or not any(run.iterdir())

@pytest.mark.parametrize('how', ['fill', 'read_only'])
def test_a_disk_that_fills_up_or_becomes_read_only(how, eyes, whole, start, small_disk):
    disk = small_disk(2**26); run = disk/'run'; log = disk.parent/'run'
    log.mkdir(); (disk/'run.error').symlink_to(log/'error')
    assert start(eyes, run, BUDGETS['steps'], how, 4, disk) == 0
    message = (log/'error').read_text(); path = brought_to_safety(message, run)
    if how == 'fill': (disk/'large').unlink()
    else: subprocess.run(['mount', '-o', 'remount,rw', disk], check=True)
    shutil.move(path, run/'checkpoint.pt')
    assert start(eyes, run, BUDGETS['steps'], resume=True) == 0 and same(run, whole)
