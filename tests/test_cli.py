"""The command line as a user meets it, with good input and with bad: each command once in a process of its own, then in this one, which is quicker."""
import contextlib, csv, io, json, os, re, shutil, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from hqgnet_nb.core import read_image, write_image

ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'MPLBACKEND': 'Agg', 'PYTHONUNBUFFERED': '1'}

def hqgnet(*args, code=0, cwd=None, alone=False):
    "(stdout, stderr) of a command; fails the test where the exit code is not `code`, or where there is a traceback. In this process, or `alone` in its own"
    if alone or cwd:
        p = subprocess.run([sys.executable, '-m', 'hqgnet_nb.cli', *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           env=ENV, cwd=cwd, timeout=1200)
        out, err, left = p.stdout, p.stderr, p.returncode
    else:
        from hqgnet_nb.cli import main
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try: left = main([*map(str, args)])
            except SystemExit as e: left = e.code or 0
        out, err = out.getvalue(), err.getvalue()
    assert left == code and 'Traceback' not in err, f'{args}: {left}\n{out}\n{err}'
    return out, err

def refused(*args, says, cwd=None):
    "Nothing if the command ends with code 2, no stdout and one line on stderr that says `says`"
    out, err = hqgnet(*args, code=2, cwd=cwd)
    err = re.sub('\nhqgnet: names are hidden.*', '', err)                # said below where that is so
    assert out == '' and len(err.splitlines()) == 1 and err.startswith('hqgnet: error: ') and says in err, err

@pytest.fixture(scope='module')
def eyes(tmp_path_factory):
    "Folder with hq/images, hq/masks, hq/fov and lq, six eyes of 64 pixels"
    d = tmp_path_factory.mktemp('eyes')
    hqgnet('phantom', d/'hq', '--kind', 'fundus', '--n', 6, '--size', 64, '--seed', 3, alone=True)
    hqgnet('degrade', d/'hq/images', d/'lq', '--kind', 'fundus', '--seed', 3, alone=True)
    return d

@pytest.fixture(scope='module')
def run(eyes):
    "A run of a few steps; what it printed is in run/stdout"
    out, err = hqgnet('train', '--lq', eyes/'lq', '--hq', eyes/'hq/images', '--out', eyes/'run', '--steps', 4, '--size', 32, '--device', 'cpu',
                      '--valid-lq', eyes/'lq', '--valid-ref', eyes/'hq/images', alone=True)
    (eyes/'run/stdout').write_text(out); (eyes/'run/stderr').write_text(err)
    return eyes/'run'

# help and usage -------------------------------------------------------------------------------------------------------------

def test_help_lists_the_commands():
    out, err = hqgnet('--help', alone=True)
    assert err == '' and all(re.search(rf'^ +{c} ', out, re.M) for c in 'demo phantom degrade train enhance merge compare evaluate info'.split())

@pytest.mark.parametrize('words', [['--help'], ['train', '--help'], ['--version'], ['enhance']])
def test_help_and_usage_import_nothing_heavy(words):
    p = subprocess.run([sys.executable, '-X', 'importtime', '-m', 'hqgnet_nb.cli', *words], capture_output=True, text=True, env=ENV)
    seen = {l.split('|')[-1].strip().split('.')[0] for l in p.stderr.splitlines() if '|' in l}
    assert 'argparse' in seen and not seen & {'torch', 'fastai', 'fastcore', 'numpy', 'scipy', 'skimage', 'PIL', 'matplotlib'}

def test_version(root):
    import hqgnet_nb
    assert hqgnet('--version', alone=True)[0] == f'hqgnet_nb {hqgnet_nb.__version__}\n'

@pytest.mark.parametrize('command', 'demo phantom degrade train enhance merge compare evaluate info'.split())
def test_each_command_has_help(command):
    out, err = hqgnet(command, '--help')
    assert out.startswith(f'usage: hqgnet {command}') and err == '' and 'None' not in out

def test_presets_are_those_of_the_learner():
    from hqgnet_nb.cli import build_parser
    from hqgnet_nb.learner import PRESETS
    train = next(a for a in build_parser()._actions if a.dest == 'command').choices['train']
    assert next(a for a in train._actions if a.dest == 'preset').choices == list(PRESETS)

TRAIN, ENHANCE = 'train --lq a --hq b --out c', 'enhance r i o'

@pytest.mark.parametrize('words, says', [
    ('', 'COMMAND'), ('dance', 'dance'), ('info', 'RUN_OR_MODEL'), ('evaluate --pred a', '--ref'), ('demo --minutes four', 'above 0'),
    ('phantom', 'OUT'), ('phantom x --n 0', 'at least 1'), ('phantom x --n 2.5', 'whole number'), ('phantom x --size 16', '32 to 2048'),
    ('phantom x --seed -1', 'from 0'), (f'phantom x --seed {2**63}', 'from 0'), ('demo --steps 2 --minutes 1', 'not allowed'),
    ('phantom x --kind tooth', 'tooth'),
    (ENHANCE + ' --strength 1.01', '0 to 1'), (ENHANCE + ' --strength nan', '0 to 1'), (ENHANCE + ' --strength -0.1', '0 to 1'),
    (ENHANCE + ' --format gif', 'gif'), (ENHANCE + ' --quality best', 'best'), (ENHANCE + ' --shard 3/2', '3/2'),
    ('train --lq a --hq b', '--out'), (TRAIN + ' --minutes 0', 'above 0'), (TRAIN + ' --minutes inf', 'above 0'), (TRAIN + ' --size 31', '32'),
    (TRAIN + ' --steps 5 --epochs 1', 'not allowed'), (TRAIN + ' --lr 0', 'above 0'),
    (TRAIN + ' --epochs -3', 'above 0'), (TRAIN + ' --choose best', 'best'), (TRAIN + ' --patience 0', 'at least 1'),
    (TRAIN + ' --preset huge', 'huge'), (TRAIN + ' --device tpu', 'tpu')])
def test_wrong_use_is_one_line(words, says, tmp_path):
    refused(*words.split(), says=says, cwd=tmp_path)
    assert not any(tmp_path.iterdir())

@pytest.mark.parametrize('kind', ['fundus', 'cornea', 'endoscopy'])
def test_every_kind_goes_all_the_way(kind, tmp_path):
    from hqgnet_nb.cli import main
    def go(*words):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err: code = main([*map(str, words)])
        assert code == 0, (words, err.getvalue()); return out.getvalue()
    t = tmp_path
    for name, seed in (('good', 1), ('test', 2)): go('phantom', t/name, '--kind', kind, '--n', 4, '--size', 48, '--seed', seed)
    for name, seed in (('good', 3), ('test', 4)): go('degrade', t/name/'images', t/f'bad_{name}', '--kind', kind, '--seed', seed)
    assert {p['kind'] for p in json.loads((t/'bad_test/degradations.json').read_text()).values()} == {kind}
    said = go('train', '--lq', t/'bad_good', '--hq', t/'good/images', '--out', t/'run', '--steps', 2, '--size', 32, '--device', 'cpu',
              '--choose', 'rule', '--patience', 5, '--valid-lq', t/'bad_test', '--valid-ref', t/'test/images')
    conf = json.loads((t/'run/config.json').read_text())
    assert 'trained for 2 steps' in said and conf['choose'] == 'rule' and conf['model']['channels'] == (1 if kind == 'cornea' else 3)
    assert '4 images in' in go('enhance', t/'run', t/'bad_test', t/'out', '--uncertainty')
    for i in range(4):
        x, y, doubt = (read_image(p/f'{i:04d}.png') for p in (t/'bad_test', t/'out', t/'out/uncertainty'))
        assert x.shape == y.shape and x.dtype == y.dtype and (x.ndim == 2) == (kind == 'cornea') and doubt.shape == x.shape[:2] and doubt.max() > 0
    masks = [] if kind == 'endoscopy' else ['--mask', t/'test/masks']
    said = go('evaluate', '--pred', t/'out', '--ref', t/'test/images', '--lq', t/'bad_test', '--fov', t/'test/fov', *masks)
    assert re.search(r'^\| prediction \| 4 \|', said, re.M) and ('vesselness' in said) == bool(masks)

def test_help_tells_of_new_flags():
    for command, flags in (('train', ('--choose {last,rule}', '--patience', '--mixed')),
                           ('enhance', ('--quality {auto,fast,full}', '--uncertainty', '--shard K/N', '--report'))):
        out, _ = hqgnet(command, '--help')
        assert all(f in out for f in flags), (command, out)
    assert 'only fundus' not in hqgnet('phantom', '--help')[0]

# phantom, degrade -----------------------------------------------------------------------------------------------------------

def test_phantom_writes_images_and_masks(eyes):
    for folder, shape in (('images', (64, 64, 3)), *((m, (64, 64)) for m in 'masks fov artery vein disc macula'.split())):
        files = sorted((eyes/'hq'/folder).iterdir())
        assert [f.name for f in files] == [f'{i:04d}.png' for i in range(6)]
        assert all(read_image(f).shape == shape and read_image(f).dtype == np.uint8 for f in files)
    assert set(np.unique(read_image(eyes/'hq/masks/0000.png'))) == {0, 255}

def test_phantom_refuses_a_folder_of_others(tmp_path):
    hqgnet('phantom', tmp_path/'o', '--n', 1, '--size', 32)
    refused('phantom', tmp_path/'o', '--n', 1, '--size', 32, '--kind', 'cornea', says='choose another folder')
    assert read_image(tmp_path/'o/images/0000.png').ndim == 3

def test_degrade_keeps_stems_and_sizes_and_records(eyes):
    assert sorted(p.name for p in (eyes/'lq').glob('*.png')) == [f'{i:04d}.png' for i in range(6)]
    noted = json.loads((eyes/'lq/degradations.json').read_text())
    assert set(noted) == {f'{i:04d}.png' for i in range(6)}
    for f in noted: x, y = read_image(eyes/'hq/images'/f), read_image(eyes/'lq'/f); assert x.shape == y.shape and (x != y).any()

def test_degrade_goes_past_a_bad_file(eyes, tmp_path):
    src = tmp_path/'src'; shutil.copytree(eyes/'hq/images', src); (src/'0003.png').write_bytes(b'\x89PNG broken')
    out, err = hqgnet('degrade', src, tmp_path/'out', '--names', code=1)
    assert len(list((tmp_path/'out').glob('*.png'))) == 5 and '5 images' in out
    assert '0003.png' in err and err.splitlines()[-1] == 'hqgnet: error: 1 of 6 images failed'

def test_degrade_refuses(eyes, tmp_path):
    refused('degrade', tmp_path/'none', tmp_path/'o', says='no such')
    refused('degrade', eyes/'hq/images', eyes/'hq/images', says='choose another folder')
    (tmp_path/'empty').mkdir(); refused('degrade', tmp_path/'empty', tmp_path/'o', says='no images')
    (tmp_path/'bad.png').write_bytes(b'no'); refused('degrade', tmp_path/'bad.png', tmp_path/'o', '--names', says='bad.png')
    assert not (tmp_path/'o').exists()
    shutil.copytree(eyes/'hq/images', tmp_path/'mine'); mine = (tmp_path/'mine/0003.png').read_bytes()
    refused('degrade', eyes/'hq/images', tmp_path/'mine', says='--overwrite'); assert (tmp_path/'mine/0003.png').read_bytes() == mine
    hqgnet('degrade', eyes/'hq/images', tmp_path/'mine', '--overwrite'); assert (tmp_path/'mine/0003.png').read_bytes() != mine

# train ----------------------------------------------------------------------------------------------------------------------

def test_train_writes_a_run(run):
    conf = json.loads((run/'config.json').read_text())
    assert conf['size'] == 32 and conf['steps'] == 4 and conf['preset'] == 'tiny' and conf['n_lq'] == 6 and conf['model']['channels'] == 3
    rows = list(csv.DictReader(open(run/'history.csv')))
    assert rows and {'step', 'split', 'total', 'adv', 'psnr'} <= set(rows[0])
    valid = [r for r in rows if r['split'] == 'valid']
    assert valid[-1]['step'] == '4' and all(np.isfinite(float(valid[-1][k])) for k in ('total', 'adv', 'psnr'))
    assert list((run/'samples').glob('*.png')) and (run/'model.safetensors').stat().st_size > 1e5 and (run/'checkpoint.pt').is_file()

def test_train_says_where_things_are_and_nothing_else_on_stdout(run):
    out, err = (run/'stdout').read_text(), (run/'stderr').read_text()
    assert all(str(run/f) in out for f in ('model.safetensors', 'config.json', 'history.csv', 'samples'))
    assert len(out.split('\n\n')[0].splitlines()) <= 6 and 'validation images' in out and 'structure changed' in out, out
    assert 'On 6 validation images at 32 pixels, all of which it was trained on' in out, '--valid-lq is --lq'
    assert err.splitlines() and all(l.startswith('hqgnet: ') for l in err.splitlines()) and 'step 4' in err

def test_train_tells_where_it_validates_on_training_images(eyes, tmp_path):
    train = ['train', '--hq', eyes/'hq/images', '--out', tmp_path/'run', '--size', 32, '--device', 'cpu', '--steps', 1]
    out, err = hqgnet(*train, '--lq', eyes/'lq/0000.png')
    assert 'hqgnet: warning: there is one low-quality image' in err and '--valid-lq' in err
    assert 'On 1 validation image at 32 pixels, which it was trained on' in out
    (tmp_path/'lq').mkdir()
    for k in range(3): shutil.copyfile(eyes/f'lq/000{k}.png', (tmp_path/f'lq/img_{k}.png'))
    refused(*train[:4], tmp_path/'other', *train[5:], '--lq', tmp_path/'lq', '--group', 'patient', says='--group number')

def test_train_begins_with_weights_that_are_there(run, eyes, tmp_path):
    train = ['train', '--lq', eyes/'lq', '--hq', eyes/'hq/images', '--out', tmp_path/'begun', '--size', 32, '--device', 'cpu', '--steps', 1]
    refused(*train, '--init', tmp_path/'nothing', says='nothing'); refused(*train, '--init', 'cornea-tiny', says='channels 1')
    refused(*train, '--init', run, '--preset', 'base', says='--preset'); assert not (tmp_path/'begun').exists()
    hqgnet(*train, '--init', run); assert f'begun with {run.name}' in hqgnet('info', tmp_path/'begun')[0]

def test_train_with_a_task(eyes, run, tmp_path):
    train = ['train', '--lq', eyes/'lq', '--hq', eyes/'hq/images', '--out', tmp_path/'run', '--size', 32, '--device', 'cpu', '--task', 'vessels']
    out, _ = hqgnet(*train, '--masks', eyes/'hq/masks', '--hq-masks', eyes/'hq/masks', '--solver', 'alternating', '--task-weight', 9, '--task-steps', 3,
                    '--steps', 4)
    config = json.loads((tmp_path/'run/config.json').read_text())
    assert (config['task'], config['solver'], config['task_weight']) == ('vessels', 'alternating', 9)
    assert (tmp_path/'run/task.safetensors').is_file() and 'task.safetensors' in out
    log = list(csv.DictReader(open(tmp_path/'run/history.csv')))
    assert all(float(r['task']) > 0 for r in log if r['task']) and {'task', 'task_fit'} <= set(log[0])
    again = [*train, '--masks', eyes/'hq/masks', '--hq-masks', eyes/'hq/masks', '--solver', 'alternating', '--task-steps', 3, '--steps', 6, '--resume']
    refused(*again, says='task_weight=9'); hqgnet(*again, '--task-weight', 9)
    refused(*train, '--masks', eyes/'hq/masks', '--solver', 'joint', '--steps', 8, '--resume', says='solver')
    refused(*train[:-4], '--masks', eyes/'hq/masks', '--steps', 1, says='--task')
    refused(*train[:-2], '--task-steps', 9, '--steps', 1, says='--task'); refused(*train[:-2], '--task-weight', 9, '--steps', 1, says='--task')
    refused(*train[:6], run, *train[7:], '--masks', eyes/'hq/masks', '--steps', 9, '--resume', says='task=None')
    (tmp_path/'m').mkdir(); shutil.copy(eyes/'hq/masks/0000.png', tmp_path/'m/x.png')
    refused(*train, '--masks', tmp_path/'m', '--steps', 1, '--out', tmp_path/'other', says='named like')

def test_train_and_compare_with_a_task_of_ones_own(eyes, tmp_path, monkeypatch):
    (tmp_path/'my').mkdir(); monkeypatch.syspath_prepend(tmp_path/'my'); (tmp_path/'my/my_own_task.py').write_text("""
import torch.nn as nn
class Share(nn.Module):
    def __init__(self): super().__init__(); self.net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    def forward(self, x): return self.net(x).mean((2, 3))
    def loss(self, out, target, fov=None): return (out[:, 0] - target.mean((1, 2, 3))).square().mean()
""")
    folders = ['--lq', eyes/'lq', '--hq', eyes/'hq/images', '--size', 64, '--task', 'my_own_task:Share', '--masks', eyes/'hq/masks']
    hqgnet('train', *folders, '--out', tmp_path/'run', '--task-steps', 3, '--steps', 4, '--device', 'cpu')
    from hqgnet_nb.bilevel import load_task
    from hqgnet_nb.core import UserError
    from hqgnet_nb.tasks import make_task
    assert type(load_task(tmp_path/'run', make_task('my_own_task:Share'))).__name__ == 'Share'
    with pytest.raises(UserError, match='my_own_task:Share'): load_task(tmp_path/'run')       # nothing is loaded because a file says so
    hqgnet('phantom', tmp_path/'t', '--n', 2, '--size', 64, '--seed', 8)
    out, _ = hqgnet('compare', *folders, '--test-lq', tmp_path/'t/images', '--test-mask', tmp_path/'t/masks', '--out', tmp_path/'out', '--steps', 2,
                    '--seeds', 1, '--methods', 'CLAHE', '--refit-steps', 2, '--solver', 'implicit')
    assert 'refit_loss' in out and 'HQG-Net, implicit' in out

def test_train_refuses(eyes, run, tmp_path):
    (tmp_path/'empty').mkdir(); (tmp_path/'bad').mkdir(); (tmp_path/'bad/x.png').write_bytes(b'no'); (tmp_path/'file').write_text('')
    (tmp_path/'torn').mkdir(); (tmp_path/'torn/checkpoint.pt').touch()
    for more, says in [(['--lq', tmp_path/'none', '--out', tmp_path/'r'], 'no such'), (['--lq', tmp_path/'empty', '--out', tmp_path/'r'], 'no images'),
                       (['--lq', tmp_path/'bad', '--out', tmp_path/'r'], 'could be read'), (['--lq', eyes/'lq', '--out', run], '--resume'),
                       (['--lq', eyes/'lq', '--out', tmp_path/'r', '--resume'], 'nothing to resume'), (['--lq', eyes/'lq', '--out', tmp_path/'file'], 'file'),
                       (['--lq', eyes/'lq', '--out', tmp_path/'torn', '--resume'], 'checkpoint.pt: damaged'),
                       (['--lq', eyes/'lq', '--out', eyes/'lq/r'], 'lies in --lq'), (['--lq', eyes/'lq', '--out', eyes/'hq/images'], 'lies in --hq'),
                       (['--lq', eyes/'lq', '--out', tmp_path/'r', '--valid-ref', eyes/'hq/images'], '--valid-lq')]:
        refused('train', '--hq', eyes/'hq/images', '--steps', 2, '--size', 32, '--device', 'cpu', *more, says=says)

# enhance --------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    "Images of many kinds, one of them broken"
    d, gen = tmp_path_factory.mktemp('mixed'), np.random.default_rng(0)
    for name, shape, top in [('rgb.png', (40, 56, 3), 255), ('grey.png', (33, 47), 255), ('deep.tif', (50, 30), 65535), ('deep_rgb.png', (20, 24, 3), 65535),
                             ('sub/photo.jpg', (64, 48, 3), 255), ('sub/dot.png', (1, 1, 3), 255), ('large.tiff', (300, 210, 3), 255)]:
        write_image(d/name, gen.integers(top//8, top//2, shape).astype(np.uint8 if top == 255 else np.uint16))
    (d/'sub/broken.png').write_bytes(b'not a picture')
    return d

def test_enhance_keeps_stem_size_kind_and_goes_past_a_bad_file(run, mixed, tmp_path):
    out, err = hqgnet('enhance', run, mixed, tmp_path/'o', '--names', code=1, alone=True)
    assert '7 images' in out and 'broken.png' in err and err.splitlines()[-1] == 'hqgnet: error: 1 of 8 images failed' and len(err.splitlines()) == 2
    made = {p.relative_to(tmp_path/'o').with_suffix('').as_posix(): p for p in (tmp_path/'o').rglob('*.*') if not p.suffix.startswith(('.json', '.plan'))}
    src = {p.relative_to(mixed).with_suffix('').as_posix(): p for p in mixed.rglob('*.*') if p.name != 'broken.png'}
    assert made.keys() == src.keys() and all(p.suffix == '.png' for p in made.values())
    for k, p in src.items(): x, y = read_image(p), read_image(made[k]); assert x.shape == y.shape and x.dtype == y.dtype, k
    assert sum((read_image(p) != read_image(made[k])).any() for k, p in src.items()) >= 6, 'something was done to them'

def test_enhance_in_the_same_format_and_at_strength_0(run, mixed, tmp_path):
    out, err = hqgnet('enhance', run/'model.safetensors', mixed, tmp_path/'o', '--format', 'same', '--strength', 0, code=1)
    for p in mixed.rglob('*.*'):
        if p.name == 'broken.png': continue
        x, y = read_image(p), read_image(tmp_path/'o'/p.relative_to(mixed))
        assert np.array_equal(x, y) and x.dtype == y.dtype if p.suffix != '.jpg' else np.abs(x.astype(int) - y).mean() < 6, p

def test_quality_and_uncertainty(run, mixed, tmp_path):
    out, _ = hqgnet('enhance', run, mixed/'large.tiff', tmp_path/'auto', '--uncertainty')           # 300 pixels, more than 4 x 32
    for q in ('fast', 'full'): hqgnet('enhance', run, mixed/'large.tiff', tmp_path/q, '--quality', q)
    auto, fast, full = (read_image(tmp_path/q/'large.png') for q in ('auto', 'fast', 'full'))
    assert (auto == fast).all() and (fast != full).any()
    doubt = read_image(tmp_path/'auto/uncertainty/large.png')
    assert doubt.shape == (300, 210) and doubt.dtype == np.uint8 and 'uncertainty' in out and not (tmp_path/'fast/uncertainty').exists()

def test_a_guide_changes_the_result(run, eyes, tmp_path):
    src = eyes/'lq/0000.png'
    for name, more in (('mean', []), ('file', ['--guide', eyes/'hq/images/0001.png']), ('folder', ['--guide', eyes/'hq/images'])):
        out, err = hqgnet('enhance', run, src, tmp_path/name, *more); assert err == '' and '1 image in' in out
    a, b, c = (read_image(tmp_path/n/'0000.png').astype(float) for n in ('mean', 'file', 'folder'))
    assert (a != b).any() and a.shape == b.shape and np.abs(a - c).mean() < np.abs(a - b).mean(), 'the folder of the training set is close to the stored mean'

def test_enhance_refuses(run, eyes, mixed, tmp_path):
    refused('enhance', run, tmp_path/'none', tmp_path/'o', says='no such')
    (tmp_path/'empty').mkdir(); refused('enhance', run, tmp_path/'empty', tmp_path/'o', says='no images')
    (tmp_path/'file').write_text('x'); refused('enhance', run, eyes/'lq', tmp_path/'file', says='is a file')
    refused('enhance', run, eyes/'lq', eyes/'lq', says='input folder')
    refused('enhance', run, mixed/'sub/broken.png', tmp_path/'o', '--names', says='broken.png')
    refused('enhance', run, eyes/'lq', tmp_path/'o', '--guide', tmp_path/'none.png', '--names', says='none.png')
    shutil.copytree(eyes/'lq', tmp_path/'twins'); shutil.copy(mixed/'sub/photo.jpg', tmp_path/'twins/0002.jpg')
    refused('enhance', run, tmp_path/'twins', tmp_path/'o', '--names', says='0002.jpg')
    assert not (tmp_path/'o').exists() or not any((tmp_path/'o').iterdir())

def test_damaged_models_are_refused(run, eyes, tmp_path):
    refused('enhance', tmp_path/'none', eyes/'lq', tmp_path/'o', says='not found')
    refused('info', eyes/'lq', says='hqgnet train')
    bad = tmp_path/'bad'
    def remade(name, data):
        shutil.rmtree(bad, ignore_errors=True); bad.mkdir()
        for f in ('model.safetensors', 'config.json'): shutil.copy(run/f, bad/f)
        (bad/name).write_bytes(data)
    weights, conf = (run/'model.safetensors').read_bytes(), json.loads((run/'config.json').read_text())
    def other(**new): return json.dumps({**conf, **new}).encode()
    for name, data, says in [('model.safetensors', weights[:len(weights)//2], 'damaged'), ('model.safetensors', b'', 'damaged'),
                             ('config.json', b'{', 'config.json'), ('config.json', other(schema=99), 'schema'),
                             ('config.json', other(model={**conf['model'], 'widths': [8, 8, 8, 8]}), 'does not fit')]:
        remade(name, data); refused('info', bad, says=says)

# compare --------------------------------------------------------------------------------------------------------------------

def test_compare_with_a_task(eyes, tmp_path):
    hqgnet('phantom', tmp_path/'t', '--n', 2, '--size', 64, '--seed', 8); hqgnet('degrade', tmp_path/'t/images', tmp_path/'test', '--seed', 8)
    compare = ['compare', '--lq', eyes/'lq', '--hq', eyes/'hq/images', '--test-lq', tmp_path/'test', '--test-ref', tmp_path/'t/images', '--out', tmp_path/'out',
               '--size', 64, '--steps', 4, '--seeds', 1, '--methods', 'CLAHE', '--refit-steps', 2]
    task = [*compare, '--task', 'vessels', '--masks', eyes/'hq/masks', '--test-mask', tmp_path/'t/masks']
    task += ['--task-weight', 3]; out, err = hqgnet(*task, '--solver', 'joint', alone=True)
    assert re.search(r'^\| HQG-Net, joint \| 1 \| 4 \|', out, re.M) and 'refit_dice' in out and 'learning the task again on 6 images' in err, (out, err)
    rows = list(csv.DictReader(open(tmp_path/'out/results.csv')))
    assert [r['method'] for r in rows[::2]] == ['no enhancement', 'CLAHE', 'HQG-Net, joint'] and all(0 <= float(r['refit_auc']) <= 1 for r in rows)
    assert all('refit_sensitivity vs no enhancement' in r for r in json.loads((tmp_path/'out/summary.json').read_text())[1:])
    assert 'refitted Dice' in (tmp_path/'out/report.html').read_text()
    again, err = hqgnet(*task, '--solver', 'joint'); assert again == out and err.count('there already') == 3 and 'training' not in err
    for more, says in ((['--masks', eyes/'hq/masks'], '--task'), (['--solver', 'joint'], '--task'), (['--task', 'vessels'], 'give masks'),
                       (['--task', 'vessels', '--masks', eyes/'hq/masks'], '--test-mask'), (['--task', 'grades', '--masks', eyes/'hq/masks'], '--test-grades')):
        refused(*compare, '--out', tmp_path/'none', *more, says=says)
    assert json.loads((tmp_path/'out/runs/hqg_net__joint_0/config.json').read_text())['task_weight'] == 3
    refused(*task, '--solver', 'joint', '--task-weight', 4, says='another task_weight')
    refused(*compare, '--out', tmp_path/'none', '--task-weight', 4, says='--task')
    refused(*task, '--solver', 'newton', '--out', tmp_path/'none', says='implicit')
    refused(*compare, '--out', tmp_path/'none', '--measure', 'nothing.there:f', says='nothing.there')
    refused(*compare, '--out', tmp_path/'none', '--measure', 'math:dist=all', says='less')
    own, _ = hqgnet(*compare, '--out', tmp_path/'own', '--measure', 'skimage.metrics:normalized_root_mse=pair,less', '--measure', 'hqgnet_nb.features:kid=sets')
    assert 'normalized_root_mse (less is better)' in own and 'kid (of the set)' in own and '▲' not in own.split('kid (of the set)')[0]
    refused(*task, '--task-group', tmp_path/'none.csv', '--out', tmp_path/'none', says='none.csv')
    assert not (tmp_path/'none').exists()

def test_compare_stopped_in_the_middle_of_a_training_goes_on(eyes, tmp_path, monkeypatch):
    "Whichever method is being trained: nothing is lost but the steps since its last checkpoint, and the table is the same"
    import functools
    import hqgnet_nb.contest as contest
    from hqgnet_nb.compare import compare_methods
    hqgnet('phantom', tmp_path/'t', '--n', 2, '--size', 64, '--seed', 8)
    monkeypatch.setattr(contest, 'train_rival', functools.partial(contest.train_rival, save_every=0))
    ask = dict(lq=eyes/'lq', hq=eyes/'hq/images', test_lq=tmp_path/'t/images', methods=['HQG-Net', 'CycleGAN'], steps=10, seeds=1, size=48)
    bare = lambda rows: [{k: v for k, v in r.items() if k != 'seconds'} for r in rows]
    whole, stops = compare_methods(**ask, out=tmp_path/'whole', say=lambda line: None), []
    def stop(line):
        if '50 %' in line and line not in stops: stops.append(line); raise KeyboardInterrupt
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt): compare_methods(**ask, out=tmp_path/'out', say=stop)
    assert sorted(stops) == ['cyclegan_0: 50 %', 'hqg_net_0: 50 %'] and (tmp_path/'out/rows/no_enhancement.json').is_file()
    said = []; again = compare_methods(**ask, out=tmp_path/'out', say=said.append)
    assert bare(again) == bare(whole) and 'cyclegan_0: 20 %' not in said and 'cyclegan_0: 90 %' in said, said

# evaluate, info -------------------------------------------------------------------------------------------------------------

def test_evaluate_prints_a_table_and_writes_numbers(eyes, tmp_path):
    out, _ = hqgnet('evaluate', '--pred', eyes/'lq', '--ref', eyes/'hq/images', '--lq', eyes/'lq', '--mask', eyes/'hq/masks', '--fov', eyes/'hq/fov',
                    '--json', tmp_path/'e.json', alone=True)
    assert all(re.search(rf'^\| {m} \| 6 \|', out, re.M) for m in ('no enhancement', 'colour matching', 'CLAHE', 'prediction'))
    res = json.loads((tmp_path/'e.json').read_text(), parse_constant=lambda c: pytest.fail(f'{c} in JSON'))
    row = {r['method']: r for r in res['rows']}
    assert row['prediction']['psnr'] == row['no enhancement']['psnr'] and 0 < row['prediction']['vesselness_auc'] <= 1 and len(res['images']) >= 24
    assert 'beside CLAHE: ' in out

def test_evaluate_without_inputs_has_one_row(eyes):
    out, _ = hqgnet('evaluate', '--pred', eyes/'lq', '--ref', eyes/'hq/images')
    assert len(re.findall(r'^\| \w', out, re.M)) == 2 and 'beside' not in out

def test_evaluate_refuses(eyes, mixed, tmp_path):
    refused('evaluate', '--pred', tmp_path/'none', '--ref', eyes/'hq/images', says='no such')
    refused('evaluate', '--pred', mixed/'sub', '--ref', eyes/'hq/images', says='share no name')
    (tmp_path/'p').mkdir()
    for i in range(6): write_image(tmp_path/f'p/000{i}.png', np.zeros((9, 9, 3), np.uint8))
    refused('evaluate', '--pred', tmp_path/'p', '--ref', eyes/'hq/images', says='none of 6 images')

def test_evaluate_goes_past_bad_images(eyes, tmp_path):
    for name in ('pred', 'lq'): shutil.copytree(eyes/'lq', tmp_path/name)
    write_image(tmp_path/'pred/0001.png', np.zeros((9, 9, 3), np.uint8)); (tmp_path/'lq/0002.png').unlink()
    out, err = hqgnet('evaluate', '--pred', tmp_path/'pred', '--ref', eyes/'hq/images', '--lq', tmp_path/'lq', '--names', code=1, alone=True)
    from hqgnet_nb.baselines import BASELINES
    assert re.findall(r'^\| ([\w ]+) \| 4 \|', out, re.M) == [*BASELINES, 'prediction'] and '4 images measured' in out, 'the same four images in every row'
    assert 'fewer than 5 images decide nothing' in out and not re.search('is better in|loses in', out), 'four of them'
    *failed, last = err.splitlines(); assert last == 'hqgnet: error: 2 of 6 images failed' and len(failed) == 2
    assert '0001.png' in failed[0] and '9x9' in failed[0] and '0002' in failed[1] and 'lq: no image' in failed[1]

def test_info(run):
    out, err = hqgnet('info', run, alone=True)
    assert 'colour' in out and '6 low-quality' in out and '32 x 32' in out and '4 steps' in out and 'not for diagnosis' in out and err == ''
    conf = json.loads(hqgnet('info', run/'model.safetensors', '--json')[0])
    assert conf['parameters'] > 1e5 and conf['steps'] == 4

def test_a_reader_that_leaves_and_a_poor_terminal_do_no_harm(run, eyes):
    p = subprocess.Popen([sys.executable, '-m', 'hqgnet_nb.cli', 'info', run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
    p.stdout.close(); err = p.stderr.read(); assert p.wait(60) == 0 and err == '', err
    p = subprocess.run([sys.executable, '-m', 'hqgnet_nb.cli', 'evaluate', '--pred', eyes/'lq', '--ref', eyes/'hq/images', '--lq', eyes/'lq'],
                       capture_output=True, text=True, env={**ENV, 'PYTHONIOENCODING': 'ascii'})
    assert p.returncode == 0 and 'beside CLAHE' in p.stdout and p.stderr == ''

# demo -----------------------------------------------------------------------------------------------------------------------

def test_demo_goes_all_the_way_and_can_be_called_again(tmp_path):
    words = ['demo', '--out', 'd', '--steps', 4, '--size', 64, '--n', 6]
    out, err = hqgnet(*words, cwd=tmp_path); d = tmp_path/'d'
    assert all(f'| {m} |' in out for m in ('no enhancement', 'colour matching', 'CLAHE', 'HQG-Net')) and f'report: {Path("d/report.html")}' in out
    eyes = {n: {p.read_bytes() for p in (d/'data'/n/'images').glob('*.png')} for n in ('hq', 'lq', 'valid', 'test')}
    assert sum(map(len, eyes.values())) == len(set.union(*eyes.values())) == 6 + 6 + 3 + 3, 'no eye is in two sets'
    assert sorted(p.stem for p in (d/'enhanced').glob('*.png')) == sorted(p.stem for p in (d/'data/test/images').glob('*.png'))
    page = (d/'report.html').read_text(encoding='utf-8')
    assert not re.search(r'https?://|<script|<link|src="(?!data:image/)', page) and str(tmp_path) not in page
    assert page.count('<img') == 6*3 + 1 and all(w in page for w in ('no enhancement', 'Worst', 'Not for diagnosis'))
    assert json.loads((d/'report.json').read_text())['rows'][-1]['method'] == 'prediction'
    weights = (d/'run/model.safetensors').read_bytes()
    out, err = hqgnet(*words, cwd=tmp_path)
    assert 'used as it is' in err and (d/'run/model.safetensors').read_bytes() == weights
    refused(*words[:-1], 7, says='other settings', cwd=tmp_path)
    (tmp_path/'mine').mkdir(); (tmp_path/'mine/thesis.txt').write_text('')
    refused('demo', '--out', 'mine', says='not a demo', cwd=tmp_path)
    assert [p.name for p in (tmp_path/'mine').iterdir()] == ['thesis.txt']
