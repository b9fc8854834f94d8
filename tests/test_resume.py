"""A training that is killed goes on where its last checkpoint left it, and ends in the same bits."""
import json, os, shutil, signal, subprocess, sys, time
import pytest
from hqgnet_nb.core import UserError, list_images
from hqgnet_nb.generator import load_net
from hqgnet_nb.train import train_folders

ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'MPLBACKEND': 'Agg', 'PYTHONUNBUFFERED': '1'}
STEPS = 30                        # validations, and with them checkpoints, come every 20 steps: a kill after the first leaves work to do

def start(*args):
    return subprocess.Popen([sys.executable, '-m', 'hqgnet_nb.cli', *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=ENV)

def done(p, code=0):
    out, err = p.communicate(timeout=1200)
    assert p.returncode == code and 'Traceback' not in err, f'{p.args}: {p.returncode}\n{out}\n{err}'
    return err

def wait_for(path, p, seconds=1200):
    "Returns when the file is there; fails where the process ends before"
    until = time.time() + seconds
    while not path.exists():
        assert p.poll() is None and time.time() < until, f'no {path.name}: {p.stderr.read() if p.poll() is not None else "too slow"}'
        time.sleep(.002)

@pytest.fixture(scope='module')
def eyes(tmp_path_factory):
    d = tmp_path_factory.mktemp('eyes')
    done(start('phantom', d/'hq', '--n', 6, '--size', 40)); done(start('degrade', d/'hq/images', d/'lq'))
    return d

def command(eyes, run, *more):
    return ('train', '--lq', eyes/'lq', '--hq', eyes/'hq/images', '--out', run, '--steps', STEPS, '--size', 32, '--device', 'cpu', *more)

@pytest.fixture(scope='module')
def whole(eyes):
    "A run without interruption"
    done(start(*command(eyes, eyes/'whole')))
    return eyes/'whole'

def rows(run):
    "history.csv without the column of seconds"
    lines = [l.split(',') for l in (run/'history.csv').read_text().splitlines()]
    k = lines[0].index('seconds')
    return [l[:k] + l[k + 1:] for l in lines]

def test_killed_and_resumed_ends_in_the_same_bits(eyes, whole, tmp_path):
    run = tmp_path/'run'
    p = start(*command(eyes, run)); wait_for(run/'checkpoint.pt', p)
    p.send_signal(signal.SIGKILL); p.communicate()
    assert p.returncode == -signal.SIGKILL and not (run/'model.safetensors').exists(), 'it was killed before its end'
    assert [f.name for f in run.iterdir() if f.name.startswith('.')] == [] or (run/'checkpoint.pt').stat().st_size > 1e5
    done(start(*command(eyes, run, '--resume')))
    assert (run/'model.safetensors').read_bytes() == (whole/'model.safetensors').read_bytes()
    a, b = (json.loads((r/'config.json').read_text()) for r in (run, whole))
    assert a.pop('seconds') > 0 < b.pop('seconds') and a == b
    assert rows(run) == rows(whole), 'the log has no gap and nothing twice'

def test_ctrl_c_keeps_a_checkpoint_to_go_on_from(eyes, whole, tmp_path):
    run = tmp_path/'run'
    p = start(*command(eyes, run)); wait_for(run/'checkpoint.pt', p)
    p.send_signal(signal.SIGINT)
    err = done(p, 130)
    assert 'stopped at step' in err.splitlines()[-1] and '--resume' in err.splitlines()[-1] and not (run/'model.safetensors').exists()
    done(start(*command(eyes, run, '--resume')))
    assert (run/"model.safetensors").read_bytes() == (whole/"model.safetensors").read_bytes(), "not a bit is lost"

def test_other_folders_are_no_resumption(eyes, tmp_path):
    "Folders that were swapped are refused, the same images elsewhere are not; a choice of weights stays until another is asked for"
    bad, good = list_images(eyes/'lq')[:5], list_images(eyes/'hq/images')[:5]           # as many of each: numbers alone do not tell
    again = dict(out=tmp_path/'run', size=32, valid_lq=bad[:1], bar=False, device='cpu')
    train_folders(bad, good, steps=3, choose='rule', **again)
    with pytest.raises(UserError) as e: train_folders(good, bad, steps=5, resume=True, **again)
    said = str(e.value); assert 'lq_files=' in said and 'hq_files=' in said and 'valid' not in said and 'give the same' in said
    shutil.copytree(eyes/'lq', tmp_path/'moved')
    for steps, choose, kept in ((4, None, 'rule'), (5, 'last', 'last'), (6, None, 'last')):
        learn = train_folders(list_images(tmp_path/'moved')[:5], good, steps=steps, resume=True, choose=choose, **again)
        assert learn.choose == load_net(tmp_path/'run')[1]['choose'] == kept, (choose, kept)
