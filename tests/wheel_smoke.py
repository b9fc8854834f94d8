"""Run by the gate in an environment that holds the built wheel and the newest fastai: the way from phantoms to an enhanced image.

Prints `PASS name (seconds)` or `FAIL name (seconds)`, and after a FAIL why, indented. Works in the current folder, which is empty.
"""
import importlib.metadata as md, importlib.util, json, subprocess, sys, time
from pathlib import Path

BIN = Path(sys.executable).parent
VERSIONS = {n: md.version(n) for n in 'hqgnet_nb fastai fastcore torch torchvision numpy'.split()}
print(f'python {sys.version.split()[0]}', *(f'{k} {v}' for k, v in VERSIONS.items()))
failed = 0

def number(name): return tuple(int(p) for p in VERSIONS[name].split('+')[0].split('.')[:3])

def check(name):
    "Runs a function as one counted check"
    def deco(f):
        global failed
        t, why = time.time(), ''
        try: f()
        except Exception as e: why = f'{type(e).__name__}: {e}'; failed += 1
        print(f"{'FAIL' if why else 'PASS'} {name} ({time.time() - t:.1f} s)")
        for l in why.splitlines()[-30:]: print('     ' + l)
        sys.stdout.flush()
        return f
    return deco

def hqgnet(*args):
    p = subprocess.run([BIN/'hqgnet', *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    if p.returncode: raise RuntimeError(f"hqgnet {' '.join(map(str, args))} gave {p.returncode}\n{p.stdout}")
    return p.stdout

@check('the library is the installed one, and needs no nbdev')
def _():
    origin = importlib.util.find_spec('hqgnet_nb').origin
    assert 'site-packages' in origin, origin
    assert importlib.util.find_spec('nbdev') is None, 'nbdev came with the library'

@check('metadata: README, licence')
def _():
    meta, files = md.metadata('hqgnet_nb'), [str(f) for f in md.files('hqgnet_nb')]
    assert 'Apache-2.0' in (meta['License-Expression'] or meta['License'] or ''), 'no licence in the metadata'
    assert any(f.endswith('LICENSE') for f in files), 'no LICENSE in the wheel'
    assert 'not for diagnosis' in (meta['Description'] or meta.get_payload()).lower(), 'the README is not in the metadata'
    stray = {f.split('/')[0] for f in files} - {'hqgnet_nb', '..'}
    assert all(d.endswith('.dist-info') for d in stray), f'the wheel also installs {stray}'

@check(f"newest fastai {VERSIONS['fastai']} and fastcore {VERSIONS['fastcore']}")
def _(): assert number('fastai') > (2, 8, 7) and number('fastcore') >= (2,), VERSIONS

@check('pip check')
def _():
    p = subprocess.run([sys.executable, '-m', 'pip', 'check'], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr

@check('hqgnet --help names every sub-command')
def _():
    out = hqgnet('--help')
    missing = [c for c in 'demo phantom degrade train enhance evaluate info'.split() if c not in out]
    assert not missing, missing

@check('phantoms and degraded copies')
def _():
    hqgnet('phantom', 'hq', '--kind', 'fundus', '--n', 8, '--size', 64, '--seed', 1)
    hqgnet('degrade', 'hq/images', 'lq', '--kind', 'fundus', '--seed', 1)
    assert sorted(p.name for p in Path('lq').glob('*.png')) == sorted(p.name for p in Path('hq/images').glob('*.png')) != []
    assert len(json.loads(Path('lq/degradations.json').read_text())) == 8

@check('six steps of training')
def _():
    hqgnet('train', '--lq', 'lq', '--hq', 'hq/images', '--out', 'run', '--steps', 6, '--size', 64, '--preset', 'tiny',
           '--device', 'cpu', '--seed', 1)
    for f in 'model.safetensors', 'config.json', 'history.csv': assert Path('run', f).stat().st_size > 0, f
    assert list(Path('run/samples').glob('*.png')), 'no samples'

@check('an enhanced image: same size, another picture; at strength 0 the same picture')
def _():
    import numpy as np
    from PIL import Image
    src = sorted(Path('lq').glob('*.png'))[0]
    x = np.asarray(Image.open(src))
    hqgnet('enhance', 'run', src, 'full'); hqgnet('enhance', 'run', src, 'none', '--strength', 0)
    full, none = (np.asarray(Image.open(f'{d}/{src.name}')) for d in ('full', 'none'))
    assert full.shape == none.shape == x.shape and full.dtype == x.dtype, (x.shape, full.shape, none.shape)
    assert (full != x).any(), 'the enhanced image equals its input'
    assert (none == x).all(), 'strength 0 changes the image'

@check('weights that come with the library enhance, without a network')
def _():
    import numpy as np, socket
    def no(*a, **k): raise OSError('no network here')
    socket.socket.connect = no
    from hqgnet_nb.enhance import Enhancer
    x = np.random.default_rng(0).integers(0, 256, (70, 60, 3), np.uint8)
    for name in 'fundus-tiny', 'cornea-tiny', 'endoscopy-tiny':
        y = Enhancer.from_pretrained(name, 'cpu').enhance(x); assert y.shape == x.shape and y.dtype == x.dtype and (y != x).any(), name
    from hqgnet_nb.widgets import STATIC, Strength
    answer, _ = Strength(Enhancer.from_pretrained('fundus-tiny', 'cpu'), {'x': x}).handle(dict(type='image', index=0))
    assert (STATIC/'demo.js').stat().st_size and answer['type'] == 'image'

sys.exit(bool(failed))
