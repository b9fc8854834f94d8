"""The evidence of notebook 23 in small: bench/downstream.py on generated images, its shared beginning, and that what is there is not run again."""
import csv, importlib.util, sys
from functools import partial
import pytest, torch
from hqgnet_nb.core import list_images, write_image
from hqgnet_nb.degrade import degrade_folder
from hqgnet_nb.phantoms import phantom
from hqgnet_nb.segmenter import WIDTHS, Segmenter, make_unet

@pytest.fixture
def bench(root, monkeypatch, tmp_path):
    "The program, called with arguments, on a folder as bench/results.py leaves one: six corneal images in as many blocks to learn from, two to test on"
    work = tmp_path/'work/cornea_128'
    for part, n, at in (('lq_ref', 6, 0), ('hq', 3, 10), ('ref', 2, 20)):
        for k in range(n):
            p, name = phantom('cornea', 96, seed=at + k), f'{40*(at + k)}.png'
            write_image(work/part/name, p['image']); write_image(work/dict(ref='mask').get(part, 'seg_mask')/name, p['mask'].astype('float32'))
    degrade_folder(work/'lq_ref', work/'lq', 'cornea', seed=0); degrade_folder(work/'ref', work/'test', 'cornea', seed=1)
    Segmenter(make_unet(), dict(widths=WIDTHS)).save(work/'compare/segmenter_0.safetensors'); (work/'done').touch(); (work/'gathered').touch()
    monkeypatch.setenv('HQGNET_DATA', str(tmp_path)); monkeypatch.syspath_prepend(root/'bench')
    spec = importlib.util.spec_from_file_location('downstream', root/'bench/downstream.py'); m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m); m.SIZE = 64
    m.HQGLearner = partial(m.HQGLearner, matched=0.)           # looking for the knobs of the corruption costs more than the whole budget of this test
    threads = torch.get_num_threads()
    def go(rows, *more):
        to = f'--out={tmp_path/"t.csv"}', f'--work={tmp_path/"work"}'
        monkeypatch.setattr(sys, 'argv', ['downstream', '--data=cornea', f'--rows={rows}', '--minutes=.1', '--refit=3', '--search=1', *to, *more])
        m.main(); return list(csv.DictReader(open(tmp_path/'t.csv')))
    go.module, go.work, go.table = m, work, tmp_path/'t.csv'
    yield go
    torch.set_num_threads(threads)

def test_the_downstream_table_is_made_row_by_row_and_goes_on(bench, capsys):
    rows = bench('CLAHE,none,none@.5,unrolled,strength')
    names = ['CLAHE', 'HQG-Net, none', 'HQG-Net, none, strength .5', 'HQG-Net, unrolled', 'HQG-Net, strength']
    assert [(r['row'], r['name']) for r in rows] == [(n, f.stem) for n in names for f in list_images(bench.work/'test')]
    by = {r['row']: r for r in rows}; none, half, unrolled, chosen = (by[n] for n in names[1:])
    assert all(0 <= float(r[c]) <= 1 for r in rows for c in ('refit_dice', 'frozen_dice', 'ssim', 'structure', 'filter_auc'))
    assert {r['masked'] for r in rows} == {''}
    assert none['strength'] == '' and float(half['strength']) == .5 and float(chosen['strength']) in (0, .25, .5, .75, 1)
    assert none['ssim'] != half['ssim'] and none['steps'] == half['steps'] == chosen['steps'], 'one network, at two strengths'
    runs = bench.work/'begun'; assert sorted(p.name for p in runs.iterdir()) == ['begin_0_0.1', 'none_0_0.1', 'unrolled_0_0_0.1'], 'one beginning for all'
    begin = torch.load(runs/'begin_0_0.1/begin.pt', weights_only=True)
    assert 0 < begin['step'] < min(int(none['steps']), int(unrolled['steps'])) and none['task_seconds'] == '0', 'both went on from there'
    before, said = bench.table.read_bytes(), capsys.readouterr().out; assert said.count('refit_dice') == 5 and 'loss at each strength' in said
    bench('CLAHE,none,none@.5,unrolled,strength'); assert bench.table.read_bytes() == before and not capsys.readouterr().out, 'nothing is run again'
    more = bench('CLAHE', '--masked=2')[len(rows):]; assert [(r['row'], r['masked']) for r in more] == [('CLAHE', '2')]*2
    lq, some = list_images(bench.work/'lq'), bench.module.with_masks
    assert len(some(lq, 'cornea', 2, 0)) == 2 and some(lq, 'cornea', None, 0) == lq and len({tuple(some(lq, 'cornea', 2, s)) for s in range(9)}) > 1
