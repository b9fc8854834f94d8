"""Models from a bad hand, through every command that opens one: nothing in a file is ever run, and what is wrong is said in one line."""
import contextlib, io, json, os, pickle, shutil, sys, zipfile
from pathlib import Path
import numpy as np, pytest, torch
from hqgnet_nb.core import write_image
from hqgnet_nb.generator import HQGNet, SCHEMA, load_net, save_net, shipped

def hqgnet(*args):
    "(exit code, stderr) of a command in this process"
    from hqgnet_nb.cli import main
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err: code = main([*map(str, args)])
    return code, err.getvalue()

@pytest.fixture
def run(tmp_path):
    "A run that was never trained, and images"
    torch.manual_seed(0); save_net(HQGNet(3, (4, 4, 8, 8), (4, 4, 8, 8), z_dim=8, y_dim=4), tmp_path/'run', size=32)
    for name in ('lq', 'hq'): write_image(tmp_path/name/'a.png', np.random.default_rng(0).integers(9, 200, (40, 40, 3)).astype(np.uint8))
    return tmp_path/'run'

@pytest.fixture
def trap(tmp_path):
    "Pickles that make a folder when they are read, as plain pickles and in the archive of torch.save; a function: has one been read?"
    sprung = tmp_path/'sprung'
    class Trap:
        def __reduce__(self): return os.mkdir, (str(sprung),)
    pickles = {f'pickle {k}': pickle.dumps(Trap(), k) for k in (0, 1, 2, 4)}
    buffer, archive = io.BytesIO(), io.BytesIO(); torch.save(dict(step=3, settings={}), buffer)
    with zipfile.ZipFile(buffer) as a, zipfile.ZipFile(archive, 'w') as b:
        for name in a.namelist(): b.writestr(name, pickle.dumps(Trap(), 2) if name.endswith('data.pkl') else a.read(name))
    yield {**pickles, 'archive': archive.getvalue()}, sprung.exists
    assert not sprung.exists()
    with contextlib.suppress(Exception): torch.load(io.BytesIO(archive.getvalue()), weights_only=False)
    assert sprung.exists(), 'the trap works'

def refused(*args, says=('',)):
    code, err = hqgnet(*args); last = err.splitlines()[-1]
    assert code == 2 and 'Traceback' not in err and last.startswith('hqgnet: error: ') and any(s in last for s in says) and len(last) < 600, err

def test_a_pickle_in_place_of_weights_is_never_opened(run, trap, tmp_path):
    pickles, sprung = trap
    for data in pickles.values():
        for name in ('model.safetensors', 'model.pt', 'pytorch_model.bin', 'model'):
            (run/name).write_bytes(data); model = run/name
            for words in (('info', model), ('enhance', model, tmp_path/'lq', tmp_path/'out'), ('app', model, '--no-browser')):
                refused(*words, says=('is a pickle', 'damaged')); assert not sprung()
    assert not (tmp_path/'out').exists()

def test_a_pickle_in_place_of_a_checkpoint_is_never_run(run, trap, tmp_path):
    from hqgnet_nb.contest import Contest
    from hqgnet_nb.data import unpaired_dls
    from hqgnet_nb.learner import HQGLearner
    pickles, sprung = trap; dls = unpaired_dls(tmp_path/'lq', tmp_path/'hq', 32)
    for data in pickles.values():
        (run/'checkpoint.pt').write_bytes(data); (run/'begin.pt').write_bytes(data)
        refused('train', '--lq', tmp_path/'lq', '--hq', tmp_path/'hq', '--out', run, '--steps', 2, '--size', 32, '--device', 'cpu', '--resume',
                says=('checkpoint.pt: damaged',))
        for load in (HQGLearner(dls).load, Contest('CycleGAN', dls).load):
            with pytest.raises(ValueError, match='damaged'): load(run/'begin.pt' if 'HQG' in repr(load) else run)
        assert not sprung()

def test_a_program_named_in_a_configuration_is_not_imported(run, tmp_path, monkeypatch):
    (tmp_path/'evil_task.py').write_text(f'import os; os.mkdir({str(tmp_path/"sprung")!r})')
    monkeypatch.syspath_prepend(str(tmp_path))
    conf = json.loads((run/'config.json').read_text()); evil = 'evil_task:run'
    (run/'config.json').write_text(json.dumps({**conf, 'task': evil, 'solver': evil, 'preset': evil, 'group': evil, 'measure': evil, 'class': evil}))
    assert hqgnet('info', run)[0] == 0 and hqgnet('enhance', run, tmp_path/'lq', tmp_path/'out')[0] == 0
    (run/'config.json').write_text(json.dumps({**conf, 'model': {**conf['model'], 'task': evil}}))
    refused('info', run, says=("'task'",))
    (run/'config.json').write_text(json.dumps({**conf, 'loss': evil})); refused('info', run, says=('loss',))
    assert 'evil_task' not in sys.modules and not (tmp_path/'sprung').exists()

SCHEMA_1 = dict(channels=3, choose='last', hq_files='37923522', kept_step=9, n_hq=240, n_lq=216, preset='tiny', schema=1,
                seconds=723.9, seed=0, size=32, steps=9)

def test_a_configuration_of_schema_1_is_migrated(run):
    "As version 0.1.0 wrote it, which knew no hash"
    net, new = load_net(run); assert new['schema'] == SCHEMA == 2 and len(new['sha256']) == 64
    (run/'config.json').write_text(json.dumps({**SCHEMA_1, 'model': net.config}))
    again, c = load_net(run); assert c['schema'] == 2 and c['sha256'] == new['sha256'] and c['n_lq'] == 216 and c['hq_files'] == '37923522'
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values()))
    assert hqgnet('info', run)[0] == 0

def test_what_comes_with_the_library_knows_its_hash():
    for folder in shipped().values():
        c = json.loads((folder/'config.json').read_text()); assert c['schema'] == SCHEMA and load_net(folder)[1]['sha256'] == c['sha256']

def test_weights_that_are_no_file(run, tmp_path):
    (run/'model.safetensors').unlink(); (run/'model.safetensors').mkdir(); refused('info', run, says=('not found',))
    shutil.rmtree(run/'model.safetensors'); os.mkfifo(run/'model.safetensors'); refused('info', run, says=('not found',))
    (run/'model.safetensors').unlink()
    with open(run/'model.safetensors', 'wb') as f: f.truncate(2**40)                  # a hole, as long as a thousand gigabytes
    refused('info', run, says=('bytes, where',))

def test_other_networks_are_checked_the_same_way(trap, tmp_path):
    from hqgnet_nb.core import UserError
    from hqgnet_nb.features import load_features
    from hqgnet_nb.gans import Rival, UNet, load_rival
    from hqgnet_nb.segmenter import Segmenter, make_unet
    pickles, sprung = trap; wide = [10**9]*5
    Rival(UNet(3, (4, 4, 8, 8)), 32, 'CycleGAN').save(tmp_path); conf = json.loads((tmp_path/'rival.json').read_text())
    (tmp_path/'rival.json').write_text(json.dumps({**conf, 'model': {**conf['model'], 'widths': wide[:4]}})); pytest.raises(UserError, load_rival, tmp_path)
    (tmp_path/'rival.json').write_text(json.dumps(conf)); load_rival(tmp_path)
    for f in ('features.json', 'features.safetensors'): shutil.copy(Path(next(iter(shipped().values()))).parent/f, tmp_path/f)
    card = json.loads((tmp_path/'features.json').read_text())
    (tmp_path/'features.json').write_text(json.dumps({**card, 'config': {**card['config'], 'widths': wide}}))
    pytest.raises(UserError, load_features, tmp_path)
    seg = Segmenter(make_unet((4, 4, 4, 4, 4, 4)), dict(widths=[4]*6)); seg.save(tmp_path/'s.safetensors'); Segmenter.load(tmp_path/'s.safetensors')
    seg.config = dict(widths=[10**6]*6); seg.save(tmp_path/'t.safetensors'); pytest.raises(UserError, Segmenter.load, tmp_path/'t.safetensors')
    for data in pickles.values():
        for name, load in (('rival.safetensors', load_rival), ('features.safetensors', load_features)):
            (tmp_path/name).write_bytes(data); pytest.raises(UserError, load, tmp_path)
        (tmp_path/'s.safetensors').write_bytes(data); pytest.raises(UserError, Segmenter.load, tmp_path/'s.safetensors'); assert not sprung()

def test_tiles_of_a_network_with_many_bands(monkeypatch):
    "A network whose widest band reaches farther than the usual margin: what is around a tile is large enough all the same"
    import hqgnet_nb.enhance as enhance
    torch.manual_seed(0); net = HQGNet(1, (4, 4, 4, 4), (4, 4, 4, 4), bands=9); net.out.bias.data[1:] = 3.; net.mean_code += 1
    en = enhance.Enhancer(net, 32, 'cpu'); img = np.zeros((64, 1600), np.float32) + np.linspace(.2, .6, 64, dtype=np.float32)[:, None]; img[:, 900:] += .3
    monkeypatch.setattr(enhance, 'ONCE', 0)
    with torch.no_grad():
        change = en.change(img, quality='full'); at = slice(0, 64), slice(400, 560); near = change(*at); en.reach += 1600; far = change(*at)
        assert far.abs().max() > .01 and (near - far).abs().max() < 1e-4, (near - far).abs().max()
        en.reach = 0; assert (change(*at) - far).abs().max() > 1e-3, 'the usual margin would not do'
    assert enhance.Enhancer(HQGNet(1, (4, 4, 4, 4), (4, 4, 4, 4)), 32, 'cpu').reach == 0
