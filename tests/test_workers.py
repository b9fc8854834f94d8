"""Randomness is a function of seed and place: who loads the images must not matter."""
import numpy as np, torch
from hqgnet_nb.core import rng

def test_loading_processes_give_the_same_batches():
    from hqgnet_nb.data import unpaired_dls
    imgs = [rng(0, 'img', k).random((40, 40, 3)).astype(np.float32) for k in range(5)]
    batches = [[b for b in unpaired_dls(imgs, imgs[::-1], size=32, bs=2, seed=3, num_workers=w).train] for w in (0, 1)]
    assert len(batches[0]) == len(batches[1]) == 2
    for a, b in zip(*batches):
        for s, t in zip(a, b): assert torch.equal(s.as_subclass(torch.Tensor), t.as_subclass(torch.Tensor))

TWO = """
import sys, torch, hashlib
from pathlib import Path
torch.set_num_threads(1)
from fastai.callback.core import Callback
from hqgnet_nb.train import train_folders
d, seen = Path(sys.argv[1]), []
class See(Callback):
    order = 7
    def before_batch(self):
        if self.training: seen.append([round(float(x), 6) for x in self.game.lq.double().mean((1, 2, 3))])
more = dict(a.split('=') for a in sys.argv[3:])
learn = train_folders(d/'lq', d/'hq', d/sys.argv[2], size=32, steps=int(more.get('steps', 2)), bar=False, device='cpu', cbs=[See()],
                      valid_every=2, resume=bool(more))
bits = lambda net: hashlib.sha256(b''.join(t.detach().contiguous().numpy().tobytes() for t in net.state_dict().values())).hexdigest()
import json, os
found = dict(net=bits(learn.model), disc=bits(learn.game.disc), ema=bits(learn.best_net()), seen=seen)
(d/f'{sys.argv[2]}-{os.environ.get("RANK", "alone")}.json').write_text(json.dumps(found))
"""

def test_two_processes_train_one_network_on_different_images(tmp_path):
    import json, os, subprocess, sys
    from hqgnet_nb.core import write_image
    for name in ('lq', 'hq'):
        for k in range(20): write_image(tmp_path/name/f'{k}.png', rng(0, name, k).random((40, 40, 3)).astype(np.float32))
    (tmp_path/'two.py').write_text(TWO)
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    def start(run, *more, n=2):
        launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(n)] if n > 1 else []
        p = subprocess.run([sys.executable, *launch, tmp_path/'two.py', tmp_path, run, *more], capture_output=True, text=True, env=env, timeout=300)
        assert p.returncode == 0, p.stderr[-3000:]
        return [json.loads((tmp_path/f'{run}-{r}.json').read_text()) for r in (range(n) if n > 1 else ['alone'])]
    a, b = start('two')
    assert all(a[k] == b[k] for k in ('net', 'disc', 'ema')), 'both networks are the same in both processes'
    mean = {x for part in (a, b) for batch in part['seen'] for x in batch}
    assert len(a['seen']) == len(b['seen']) == 2 and len(mean) == sum(len(s) for p in (a, b) for s in p['seen']), 'no image comes twice'
    alone, = start('one', n=1)
    assert alone['net'] != a['net'], 'the second process had a say'
    assert alone['seen'][:1] == a['seen'][:1] and alone['seen'][1] == b['seen'][0], 'together they go through the same stream'
    c, d = start('two', 'steps=4')
    assert c['net'] == d['net'] != a['net'] and (tmp_path/'two/model.safetensors').exists(), 'and go on from its checkpoint'
