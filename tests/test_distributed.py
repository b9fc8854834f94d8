"""Several processes train what one process trains with the same batch; they stop, fail and go on together."""
import json, os, signal, subprocess, sys, time
import numpy as np, pytest, torch
from conftest import noted
from hqgnet_nb.core import rng, write_image

N = int(os.environ.get('HQGNET_PROCESSES', 2))              # `make stress` takes three
STEPS, ENV = 6, {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONUNBUFFERED': '1', 'PYTHONWARNINGS': 'ignore'}

# Run by each process. All in one go, since fastai takes long to import.
SCRIPT = '''
import hashlib, json, os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from fastai.callback.core import Callback
from hqgnet_nb.bilevel import task_callback
from hqgnet_nb.core import UserError, torch_rng
from hqgnet_nb.learner import Lost, place
from hqgnet_nb.restore import KNOBS
from hqgnet_nb.train import train_folders

class Watch(Callback):
    "Notes the images seen; does something at the end of a step"
    order = 79
    def __init__(self, at=None, do=None): self.at, self.do, self.seen = at, do, []
    def before_fit(self):
        self.learn.history.every = 1; self.learn.game.bank = torch.rand(8, len(KNOBS), generator=torch_rng(0, 'bank'))       # without the search
    def after_batch(self):
        if not self.training: return
        self.seen += [round(float(x), 6) for x in self.game.good.double().mean((1, 2, 3))]
        if self.game.step == self.at: self.do(self.learn)

def train(d, run, steps=6, at=None, do=None, cbs=(), **more):
    watch = Watch(at, do)
    steps = None if 'minutes' in more else steps
    learn = train_folders(d/'lq', d/'hq', d/run, size=32, steps=steps, bar=False, device='cpu', cbs=[watch, *cbs], **dict(valid_every=3) | more)
    return learn, watch

def of_net(net): return hashlib.sha256(b''.join(t.detach().contiguous().numpy().tobytes() for t in net.state_dict().values())).hexdigest()

def bits(learn):
    return [of_net(net) for net in (learn.model, learn.game.disc, learn.ema.net, learn.best_net())] + [learn.game.step, learn.best and learn.best['step']]

if __name__ == '__main__':
    d, found = Path(sys.argv[1]), {}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)         # the launcher sends it when another process has died: what do we notice ourselves?
    def note(**new):
        found.update(new); (d/f'{os.environ["RANK"]}.json').write_text(json.dumps(found))
    def ask(learn): learn.stop_asked = place()[0] == 1                      # as if one of them had got the signal
    def die(learn):
        if place()[0] == 1: os._exit(7)
    learn, watch = train(d, 'whole', choose='rule'); note(whole=bits(learn), seen=watch.seen)
    try: train(d, 'whole')
    except UserError as e: note(refused=[str(e), e.told])
    try: train(d, 'parts', at=2, do=ask, choose='rule'); note(stopped=None)
    except KeyboardInterrupt as e: note(stopped=str(e))
    learn, _ = train(d, 'parts', resume=True, choose='rule'); note(parts=bits(learn))
    ticks = iter(range(10**6)); speed = 1 + 3*place()[0]                    # the clocks of the others run faster
    learn, _ = train(d, 'minutes', minutes=1, valid_every=100, timer=lambda: next(ticks)*speed); note(minutes=bits(learn))
    learn, _ = train(d, 'half', 2, mixed=True); note(half=bits(learn))
    try: train(d, 'moved', at=2, do=ask, choose='rule'); note(moved=None)          # one process goes on with it, below
    except KeyboardInterrupt: note(moved=2)
    bi = task_callback('vessels', masks=d/'masks'); bi.warmup, bi.first = 0, 2
    learn, _ = train(d, 'task', cbs=[bi]); note(task=bits(learn) + [of_net(bi.task), bi.turn])
    t = time.time()
    try: train(d, 'dead', at=2, do=die); note(dead=None)
    except UserError as e: note(dead=[type(e) is Lost, str(e), time.time() - t])
'''

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Two folders of 24 pictures, and the script"
    d = tmp_path_factory.mktemp('several'); (d/'work.py').write_text(SCRIPT)
    for name in ('lq', 'hq'):
        for k in range(24): write_image(d/name/f'{k}.png', rng(0, name, k).random((40, 40, 3)).astype(np.float32))
    for k in range(24): write_image(d/'masks'/f'{k}.png', (255*(rng(0, 'mask', k).random((40, 40)) > .8)).astype(np.uint8))
    return d

def launch(*words):
    return [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', str(N), '--main_process_port', '0', *map(str, words)]

def rows(run):
    "history.csv as a list of dicts, without the column of seconds"
    names, *rest = [l.split(',') for l in (run/'history.csv').read_text().splitlines()]
    return [{k: float(v) if v[-1:].isdigit() else v for k, v in zip(names, r) if k != 'seconds'} for r in rest]

def test_several_processes_are_one(folder):
    t = time.time(); p = subprocess.run(launch(folder/'work.py', folder), capture_output=True, text=True, env=ENV, timeout=1800)
    assert p.returncode and time.time() - t < 1500, 'one of them died in the end, on purpose, and the launcher says so'
    each = [json.loads((folder/f'{r}.json').read_text()) if (folder/f'{r}.json').exists() else pytest.fail(p.stderr[-3000:]) for r in range(N)]
    one, others = each[0], each[1:]
    for k in ('whole', 'parts', 'minutes', 'half', 'task'): assert all(e.get(k) == one[k] for e in others), f'{k}: the same in all\n{p.stderr[-3000:]}'
    assert all(e['refused'] == [one['refused'][0], k > 0] for k, e in enumerate(each)) and 'holds a run already' in one['refused'][0], 'said once'
    assert all('step 2' in e['stopped'] for e in each) and one['parts'] == one['whole'], 'stopped together, and not a bit is lost'
    assert 1 < one['minutes'][4] < 60, 'the clock of the first'
    assert one['task'][-1] > 1 and one['task'][0] != one['whole'][0], 'the task had its turns'
    assert one['dead'][0] and 'another process' in one['dead'][1] and one['dead'][2] < 60 and all('dead' not in e for e in others[:1]), one['dead']
    # one process with the same batch
    space = {'__name__': 'work'}; exec(SCRIPT, space)
    learn, watch = space['train'](folder, 'alone', batch=4*N, choose='rule')
    assert sorted(watch.seen) == sorted(x for e in each for x in e['seen']) and one['seen'] != others[0]['seen'], 'they share its images'
    assert all(e['moved'] == 2 for e in each); space['train'](folder, 'moved', resume=True, batch=4*N, choose='rule')          # on another number of processes
    a, *others = ({k: v for k, v in torch.load(folder/run/'checkpoint.pt', weights_only=True).items() if k in ('net', 'disc', 'ema')}
                  for run in ('alone', 'whole', 'moved'))
    most = 0
    for run, b in zip(('several processes', 'several, then one'), others, strict=True):
        for k in a:
            x, y = (torch.cat([v.flatten().double() for v in s[k].values()]) for s in (a, b)); far = float((x - y).norm()/x.norm()); most = max(most, far)
            assert far < 2e-3, f'{k}: {run} are {far} from one process'        # 4e-4 where the first weights differ by one part in ten million
    a, b = rows(folder/'alone'), rows(folder/'whole'); assert [(r['step'], r['split']) for r in a] == [(r['step'], r['split']) for r in b], 'one log'
    for r, s in zip(a[:2], b[:2]):                          # of two steps; then rounding, which Adam makes more of in each step
        assert r['step'] < 3 and all(abs(r[k] - s[k]) < 2e-5*max(1, abs(r[k])) if isinstance(r[k], float) else r[k] == s[k] for k in r), (r, s)
    assert abs(a[-1]['total']/b[-1]['total'] - 1) < 5e-3 and abs(a[-1]['score'] - b[-1]['score']) < 5e-3
    assert len(list((folder/'whole/samples').glob('*.png'))) == 2 and json.loads((folder/'whole/config.json').read_text())['batch'] == 4*N
    with pytest.raises(ValueError, match='batch=8|batch=12'): space['train'](folder, 'parts', resume=True)       # with another batch it would be another run
    assert learn.game.step == STEPS
    noted(f'Training by {N} processes: after {STEPS} steps the weights are {most:.0e} of their length from those of one process; 2e-3 at most')

def test_command_line_trains_in_several_processes_and_stops(folder):
    words = f'train --processes {N} --lq {folder}/lq --hq {folder}/hq --out {folder}/cli --size 32 --steps 100000 --valid-every 2 --device cpu'.split()
    p = subprocess.Popen([sys.executable, '-m', 'hqgnet_nb.cli', *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
    until = time.time() + 1200
    while not (folder/'cli/checkpoint.pt').exists(): assert p.poll() is None and time.time() < until, p.communicate()[1]; time.sleep(.05)
    p.send_signal(signal.SIGTERM); _, err = p.communicate(timeout=1800)
    said = [l for l in err.splitlines() if l.startswith('hqgnet: ')]
    assert p.returncode and sum('stopped at step' in l for l in said) == 1 and '--resume' in said[-1] and sum('step 2,' in l for l in said) == 1, err
    at = torch.load(folder/'cli/checkpoint.pt', weights_only=True)['step']
    assert f'stopped at step {at};' in said[-1] and not (folder/'cli/model.safetensors').exists()

def test_a_folder_is_enhanced_by_a_launcher(folder):
    words = ['-m', 'hqgnet_nb.cli', 'enhance', 'fundus-tiny', folder/'lq', folder/'enhanced', '--device', 'cpu']
    p = subprocess.run(launch(*words), capture_output=True, text=True, env=ENV, timeout=1200); assert not p.returncode, p.stderr[-2000:]
    lines = [[json.loads(l) for l in (folder/f'enhanced/manifest_{k}.jsonl').read_text().splitlines()] for k in range(N)]
    done = [{d['file'] for d in l if d.get('status') == 'done'} for l in lines]
    assert all(done) and sum(map(len, done)) == 24 == len(set().union(*done)) == len(list((folder/'enhanced').glob('*.png'))), 'each file once'
