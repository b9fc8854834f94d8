"""The ONNX file against PyTorch, over sizes, colours, strengths, fields of view, guides and frozen statistics; files that must be refused."""
import shutil
import numpy as np
import pytest
import torch
from hqgnet_nb.core import UserError
from hqgnet_nb.enhance import Enhancer
from hqgnet_nb.generator import HQGNet, load_net, save_net, shipped
from hqgnet_nb.phantoms import phantom

pytest.importorskip('onnx', reason="onnx is not installed; pip install 'hqgnet_nb[export]'")
pytest.importorskip('onnxruntime', reason="onnxruntime is not installed; pip install 'hqgnet_nb[export]'")
from hqgnet_nb.export import OnnxNet, export_onnx, find_onnx, onnx_graph        # noqa: E402

NAMES = ('fundus-tiny', 'cornea-tiny')

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "Copies of the shipped weights, each with its model.onnx"
    base = tmp_path_factory.mktemp('onnx')
    for name in NAMES:
        shutil.copytree(shipped()[name], base/name); assert export_onnx(base/name) == base/name/'model.onnx'
    return base

def picture(name, size):
    "(1 x C x H x W, 1 x 1 x H x W field of view)"
    made = phantom(name.split('-')[0], 256, 5); img = .7*made['image']
    x = torch.tensor(img if img.ndim == 3 else img[..., None]).permute(2, 0, 1)[None]
    return (t[..., :size[0], :size[1]].contiguous() for t in (x, torch.tensor(made['fov'])[None, None].float()))

def close(got, want):
    torch.testing.assert_close(got.x, want.x, rtol=0, atol=1e-4)
    for k in ('delta', 'doubt'): torch.testing.assert_close(getattr(got, k), getattr(want, k), rtol=0, atol=5e-4)       # logarithms

@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('size', [(128, 176), (97, 64), (33, 130), (16, 16), (1, 1)])
def test_equals_pytorch(runs, name, size):
    net, engine = load_net(runs/name)[0], OnnxNet(runs/name/'model.onnx')
    x, fov = picture(name, size); other = picture(name, (128, 128)); guide = net.guidance(*other)[0].detach()
    for strength in (0, .5, 1):
        for f in (None, fov):
            for code in (net.mean_code, guide):
                ours, theirs = {}, {}
                with torch.no_grad(): want = net(x, code=code, strength=strength, fov=f, stats=ours, full=True)
                got = engine(x, code, strength, f, theirs)
                close(got, want); assert ours.keys() == theirs.keys()
                if strength == 0: assert torch.equal(got.x, x)
        if min(size) >= 16:                                # statistics of this piece, used for another, whoever found them
            whole, whole_fov = picture(name, (160, 150))
            for stats in (ours, theirs):
                with torch.no_grad(): want = net(whole, code=code, strength=strength, fov=whole_fov, stats=stats, full=True)
                close(engine(whole, code, strength, whole_fov, stats), want)

def test_batches_and_strengths(runs):
    net, engine = load_net(runs/NAMES[0])[0], OnnxNet(runs/NAMES[0]/'model.onnx')
    x = torch.cat([next(iter(picture(NAMES[0], (64, 80)))), torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0))])
    with torch.no_grad(): want = net(x, code=net.mean_code, strength=torch.tensor([0., .3, 1.]), full=True)
    close(engine(x, net.mean_code, torch.tensor([0., .3, 1.])), want)

@pytest.mark.parametrize('model', [dict(channels=1, bands=0), dict(channels=3, bands=2), dict(channels=1, widths=(16, 16, 32, 32), bands=1),
                                   dict(channels=3, widths=(32, 32, 32, 48))])
def test_other_shapes_of_network(model, tmp_path):
    torch.manual_seed(1); net = HQGNet(**{'widths': (8, 8, 12, 12), 'guide_widths': (8, 8, 8, 8), **model}).eval(); net.mean_code.normal_()
    save_net(net, tmp_path, size=32); export_onnx(tmp_path)
    x = torch.rand(1, model['channels'], 50, 40)
    with torch.no_grad(): want = net(x, strength=.7, full=True)
    close(OnnxNet(tmp_path/'model.onnx', tmp_path/'model.safetensors')(x, net.mean_code, .7), want)

@pytest.fixture(autouse=True)
def one_thread():
    "`auto` takes ONNX Runtime where PyTorch has one thread"
    n = torch.get_num_threads(); torch.set_num_threads(1); yield; torch.set_num_threads(n)

def test_the_faster_one_is_taken(runs):
    assert Enhancer.load(runs/NAMES[0], 'cpu').engine is not None
    torch.set_num_threads(2); assert Enhancer.load(runs/NAMES[0], 'cpu').engine is None and Enhancer.load(runs/NAMES[0], 'cpu', 'onnx').engine is not None

@pytest.mark.parametrize(('name', 'size'), [('fundus-tiny', (300, 260)), ('cornea-tiny', (90, 70)), ('cornea-tiny', (800, 1340))])      # the last in tiles
def test_enhancer_gives_the_same(runs, name, size):
    quick, plain = Enhancer.load(runs/name, 'cpu'), Enhancer.load(runs/name, 'cpu', 'torch')
    assert quick.engine is not None and plain.engine is None
    img = np.random.default_rng(0).integers(0, 65536, size + (3,)*(quick.channels == 3)).astype(np.uint16)
    for quality in ('fast', 'full') if max(size) < 1000 else ('full',):
        a, b = quick.enhance(img, .8, quality=quality), plain.enhance(img, .8, quality=quality)
        assert a.dtype == b.dtype == np.uint16 and np.abs(a.astype(int) - b).max() <= 1e-4*65535 + 1
    if max(size) > 1000: return
    assert np.abs(quick.uncertainty(img) - plain.uncertainty(img)).max() < 1e-3
    kept = {}; assert np.array_equal(quick.enhance(img, .3, kept=kept), quick.enhance(img, .3, kept=kept))

def test_a_file_that_does_not_belong_is_refused(runs, tmp_path):
    run = tmp_path/'run'; shutil.copytree(runs/NAMES[0], run); other = shipped()['endoscopy-tiny']
    for f in ('model.safetensors', 'config.json'): shutil.copy(other/f, run)
    with pytest.raises(UserError, match='other weights'): Enhancer.load(run, 'cpu', 'onnx')
    with pytest.warns(UserWarning, match='other weights'): assert Enhancer.load(run, 'cpu').engine is None
    assert Enhancer.load(run, 'cpu', 'torch').engine is None
    for damage in (b'', b'not onnx', (runs/NAMES[0]/'model.onnx').read_bytes()[:5000]):
        (run/'model.onnx').write_bytes(damage)
        with pytest.raises(UserError, match='hqgnet export'): find_onnx(run, must=True)
        with pytest.warns(UserWarning): assert Enhancer.load(run, 'cpu').engine is None
    (run/'model.onnx').write_bytes(onnx_graph(load_net(run)[0], hqgnet_schema=99).SerializeToString())
    with pytest.raises(UserError, match='schema 99, not 3'): find_onnx(run, must=True)
    (run/'model.onnx').unlink()
    with pytest.raises(UserError, match='not found'): Enhancer.load(run, 'cpu', 'onnx')
    with pytest.raises(UserError, match='choose auto, torch or onnx'): Enhancer.load(run, 'cpu', 'tensorrt')

def forged(path, change, again=True):
    "Write the file anew after a change; `again`: with the hash of what is in it now, as a forger would"
    import hashlib, onnx
    m = onnx.load(path, load_external_data=False); m = change(m) or m
    for p in m.metadata_props:
        if p.key == 'graph' and again: p.value = hashlib.sha256(m.graph.SerializeToString()).hexdigest()
    path.write_bytes(m.SerializeToString())

def note(m, key, value): next(p for p in m.metadata_props if p.key == key).value = value
def elsewhere(m, place):
    t = m.graph.initializer[0]; n = len(t.raw_data); t.ClearField('raw_data'); t.data_location = 1
    for k, v in (('location', place), ('offset', '0'), ('length', str(n))): t.external_data.add(key=k, value=v)
def inside(m):                                 # the same, in a branch that is hardly ever taken
    from onnx import helper, TensorProto
    t = TensorProto(name='t', data_type=1, dims=[4], data_location=1); t.external_data.add(key='location', value='../secret.bin')
    node = next(n for n in m.graph.node if n.op_type == 'If'); g = node.attribute[0].g; g.initializer.append(t)
    assert helper.get_attribute_value(node.attribute[0]).initializer
def named(m, op='Conv', domain='', to=None):
    for n in m.graph.node:
        if n.op_type == op: n.domain = domain; n.op_type = to or op; break
def function(m):
    from onnx import helper
    m.functions.append(helper.make_function('', 'Conv', ['x'], ['y'], [helper.make_node('Abs', ['x'], ['y'])], [helper.make_opsetid('', 18)]))
def constant(m, dims, kind=1, raw=b''): m.graph.initializer.add(name='z', data_type=kind, dims=dims, raw_data=raw)
def sizes(m):
    import onnx.numpy_helper as nh
    scales = next(n for n in m.graph.node if n.op_type == 'Resize').input[2]
    t = next(t for t in m.graph.initializer if t.name == scales); t.CopyFrom(nh.from_array(np.array([1, 1, 1e6, 1e6], np.float32), t.name))
def rim(m): next(n for n in m.graph.node if n.op_type == 'AveragePool').attribute.add(name='pads', type=7, ints=[2**20]*4)
def looped(m): named(m, 'Conv', '', 'Loop')
def output(m): m.graph.output[0].name = 'doubt2'
def deeper(m):
    from onnx import helper
    g = helper.make_graph([], 'g', [], [])
    for _ in range(50): g = helper.make_graph([helper.make_node('If', ['frozen'], [], then_branch=g,
        else_branch=g)] if len(g.SerializeToString()) < 10**6 else [], 'g', [], [])
    m.graph.node.append(helper.make_node('If', ['frozen'], [], then_branch=g, else_branch=g))

FORGED = {'an array in another file': (lambda m: elsewhere(m, '../secret.bin'), 'another file'),
    'beside it': (lambda m: elsewhere(m, 'secret.bin'), 'another file'),
          'of the system': (lambda m: elsewhere(m, '/etc/passwd'), 'another file'), 'in a branch': (inside, 'another file'),
          'a custom operation': (lambda m: named(m, domain='com.someone'), "'Conv', which is not one of ours"),
          'an operation of ONNX Runtime': (lambda m: named(m, domain='com.microsoft', to='FusedConv'), 'FusedConv'),
          'a loop': (looped, "'Loop'"), 'a function': (function, 'functions of its own'), 'lists within lists': (deeper, 'lists within lists'),
          'newer operations': (lambda m: setattr(m.opset_import[0], 'version', 99), 'another set of operations'),
          'older operations': (lambda m: setattr(m.opset_import[0], 'version', 11), 'another set of operations'),
          'two sets': (lambda m: m.opset_import.add(domain='ai.onnx.ml', version=3) and None, 'another set of operations'),
          'a huge shape': (lambda m: constant(m, [2**40]), 'another length'), 'a negative one': (lambda m: constant(m, [-1]), 'another length'),
          'a text': (lambda m: constant(m, [1], 8, b'x'), 'another type'), 'a huge number': (lambda m: constant(m, [1], 7, (2**40).to_bytes(8, 'little')),
          'beyond'),
          'a huge rim': (rim, 'beyond'), 'a huge factor': (sizes, 'beyond'), 'another output': (output, 'inputs or outputs'),
          'no output': (lambda m: m.graph.output.pop() and None, 'inputs or outputs'),
          'another input': (lambda m: setattr(m.graph.input[0], 'name', 'x'), 'inputs or outputs'), 'no list': (lambda m: m.ClearField('graph'), ''),
          'no schema': (lambda m: m.ClearField('metadata_props'), 'schema'), 'another schema': (lambda m: note(m, 'hqgnet_schema', '1'), 'schema 1'),
          'more channels': (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], 'dim_value', 1), '')}

@pytest.mark.parametrize('name', FORGED)
def test_a_forged_file_is_refused_before_it_is_opened(runs, tmp_path, name, monkeypatch):
    import onnxruntime
    run = tmp_path/'run'; shutil.copytree(runs/NAMES[0], run); change, says = FORGED[name]
    for p in (tmp_path/'secret.bin', run/'secret.bin'): p.write_bytes(bytes(10**6))
    forged(run/'model.onnx', change); opened = []; true = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, 'InferenceSession', lambda *a, **kw: (opened.append(1), true(*a, **kw))[1])
    with pytest.raises(UserError, match='hqgnet export') as e: find_onnx(run, must=True)
    assert says in str(e.value) and len(str(e.value).splitlines()) == 1 and len(str(e.value)) < 2*len(str(run)) + 200, str(e.value)
    assert not opened or name == 'more channels'
    with pytest.warns(UserWarning, match='PyTorch does the work'): assert Enhancer.load(run, 'cpu').engine is None

def test_what_is_changed_by_accident_is_found(runs, tmp_path):
    "Other weights in the list, a bit of it, the list of another run under these notes: the hash is another"
    run = tmp_path/'run'; shutil.copytree(runs/NAMES[0], run); f = run/'model.onnx'; whole = f.read_bytes(); find_onnx(run, must=True)
    def weights(m): t = m.graph.initializer[0]; t.raw_data = bytes(len(t.raw_data))
    forged(f, weights, again=False)
    with pytest.raises(UserError, match='damaged'): find_onnx(run, must=True)
    g = np.random.default_rng(0)
    for k in g.integers(0, len(whole), 40):
        b = bytearray(whole); b[k] ^= 1 << int(g.integers(8)); f.write_bytes(b)
        with pytest.raises(UserError, match='hqgnet export'): find_onnx(run, must=True)
    for k in [*g.integers(1, len(whole), 20), len(whole) - 1]:
        f.write_bytes(whole[:k])
        with pytest.raises(UserError, match='hqgnet export'): find_onnx(run, must=True)
    f.write_bytes((runs/NAMES[1]/'model.onnx').read_bytes())                       # of another run
    with pytest.raises(UserError, match='other weights'): find_onnx(run, must=True)
    mine = next(p.value for p in __import__('onnx').load_from_string(whole).metadata_props if p.key == 'weights')
    forged(f, lambda m: note(m, 'weights', mine))                                  # and said to be of this one: other channels
    with pytest.raises(UserError, match='another shape than config.json'): find_onnx(run, must=True)
    with open(f, 'wb') as h: h.truncate(2**31)                                     # a hole
    with pytest.raises(UserError, match='MiB'): find_onnx(run, must=True)

@pytest.mark.parametrize('field', [8, 14])
def test_a_number_in_the_place_of_a_word(runs, tmp_path, field):
    "Of operation sets and notes: as so many zeros it would fill the memory"
    run = tmp_path/'run'; shutil.copytree(runs/NAMES[0], run); number = b'\x08' + b'\x80'*8 + b'\x40'            # field 1: 2**62
    with open(run/'model.onnx', 'ab') as f: f.write(bytes([field << 3 | 2, len(number)]) + number)
    with pytest.raises(UserError, match='in the place of a word'): find_onnx(run, must=True)

def test_what_goes_wrong_while_it_runs_is_one_line(runs):
    engine, x = OnnxNet(runs/NAMES[0]/'model.onnx'), torch.rand(1, 3, 32, 32)
    with pytest.raises(UserError, match='ONNX Runtime stopped'): engine(x, torch.zeros(1, 3))

def test_export_goes_where_it_is_told(runs, tmp_path):
    assert export_onnx('fundus-tiny', tmp_path) == tmp_path/'model.onnx' and export_onnx(runs/NAMES[1], tmp_path/'a'/'b.onnx').is_file()
    assert not (shipped()['fundus-tiny']/'model.onnx').exists() and not list(tmp_path.glob('**/*.tmp*'))
    with pytest.raises(UserError, match='ends with .onnx'): export_onnx('fundus-tiny', tmp_path/'model.pt')
    with pytest.raises(UserError, match='not found'): export_onnx(tmp_path/'nowhere')
    save_net(HQGNet(1, (4, 4, 4, 4), (4, 4, 4, 4), head='difference'), tmp_path/'d', size=16)
    with pytest.raises(UserError, match='gated'): export_onnx(tmp_path/'d')

def test_without_the_packages(runs, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name, *a: None)
    for f in (lambda: export_onnx('fundus-tiny'), lambda: find_onnx(runs/NAMES[0], must=True)):
        with pytest.raises(UserError, match=r"pip install 'hqgnet_nb\[export\]'"): f()
    assert Enhancer.load(runs/NAMES[0], 'cpu').engine is None
