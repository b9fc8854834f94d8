"""The code on each card in data/, run on a folder of random pictures that is laid out as the card says."""
import re
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from hqgnet_nb.core import fov_mask, list_images, mask_finder, read_image, read_mask, write_image
from hqgnet_nb.data import blocks, number, patient

GEN = np.random.default_rng(0)

def picture(path, size=(150, 140), mask=False, dark=0):
    "A random picture, or a mask with a disc; `dark`: width of a black border"
    h, w = size; y, x = np.mgrid[:h, :w]; disc = np.hypot(y - h/2, x - w/2) < h/4
    img = disc*np.uint8(255) if mask else (40 + GEN.random((h, w, 3))*200).astype(np.uint8)
    if dark: img[:, :dark] = img[:, -dark:] = 0
    path = Path(path); path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(img).save(path) if path.suffix.lower() in ('.gif', '.jpeg') else write_image(path.with_suffix(path.suffix.lower()), img)
    if path.suffix != path.suffix.lower() and path.suffix.lower() != '.jpeg': path.with_suffix(path.suffix.lower()).rename(path)

def eyeq():
    rows = [(f'{p}_{e}', GEN.integers(0, 3)) for p in range(10, 40) for e in ('left', 'right')]
    for d in ('train', 'test'):
        text = ',image,quality,DR_grade\n' + ''.join(f'{i},{n}.jpeg,{q},0\n' for i, (n, q) in enumerate(rows))
        Path('EyeQ').mkdir(exist_ok=True); Path(f'EyeQ/Label_EyeQ_{d}.csv').write_text(text)
    for n, _ in [*rows, ('99_left', 0)]: picture(f'EyeQ/train/{n}.jpeg', dark=20)

def drive():
    for part, first in (('training', 21), ('test', 1)):
        for k in range(first, first + 6):
            picture(f'DRIVE/{part}/images/{k:02d}_{part}.tif'); picture(f'DRIVE/{part}/mask/{k:02d}_{part}_mask.gif', mask=True)
            picture(f'DRIVE/{part}/1st_manual/{k:02d}_manual1.gif', mask=True)

def chase_db1():
    for k in range(1, 8):
        for e in 'LR':
            picture(f'CHASEDB1/Image_{k:02d}{e}.jpg')
            for o in ('1stHO', '2ndHO'): picture(f'CHASEDB1/Image_{k:02d}{e}_{o}.png', mask=True)

def hrf():
    for k in range(1, 6):
        for kind, suffix in (('dr', 'JPG'), ('g', 'jpg'), ('h', 'jpg')):
            picture(f'HRF/images/{k:02d}_{kind}.{suffix}')
            for f in (f'manual1/{k:02d}_{kind}', f'mask/{k:02d}_{kind}_mask'): picture(f'HRF/{f}.tif', mask=True)

def corn2():
    for d in ('low', 'high'):
        for k in range(60): picture(f'CORN-2/{d}/any/name_{k:02d}.png')

def kvasir_seg():
    for k in range(8):
        for d in ('images', 'masks'): picture(f'Kvasir-SEG/{d}/cju{k}qk{7*k}piu0.jpg', (150, 140 + 20*k), d == 'masks', dark=10)
    Path('Kvasir-SEG/kavsir_bboxes.json').write_text('{}')

def cvc_clinicdb():
    for k in range(1, 151):
        for d in ('Original', 'Ground Truth'): picture(f'CVC-ClinicDB/{d}/{k}.tif', (28, 38), d[0] == 'G')

def ccm():
    for k in range(0, 320, 3):
        d = Path('ccm_NerveStitcher2_sh')
        picture(d/('lq_proxy' if k % 2 else 'hq_proxy')/f'shOD{k}.jpg'); picture(d/f'pseudo_masks/shOD{k}.png', mask=True)

LAYOUTS = dict(eyeq=eyeq, drive=drive, chase_db1=chase_db1, hrf=hrf, corn2=corn2, kvasir_seg=kvasir_seg, cvc_clinicdb=cvc_clinicdb, ccm=ccm)

def code(root, card):
    text = (root/f'data/{card}.md').read_text(); assert list(re.findall(r'^## (.+)$', text, re.M))[-2:] == ['Reading', 'Traps']
    return re.search(r'^## Reading\n```python\n(.*?)```', text, re.M | re.S)[1]

@pytest.fixture
def here(tmp_path, monkeypatch): monkeypatch.chdir(tmp_path); return tmp_path

@pytest.mark.parametrize('card', LAYOUTS)
def test_the_code_on_the_card_runs_on_its_layout(card, root, here):
    LAYOUTS[card](); out = {}
    exec(code(root, card), out)
    for name in ('train', 'test'):                            # every split has two sides that share no file
        if name in out: assert out[name] and len(set(out[name])) == len(out[name])
    if 'test' in out: assert not set(out['train']) & set(out['test'])
    if 'dls' in out: lq, fov, hq, _ = out['dls'].train.one_batch(); assert lq.shape[2:] == (128, 128) and lq.shape == hq.shape and lq.std() > .01
    for group in out.get('sets', ()) or out.get('pairs', ()):
        img, *masks = group; assert all(m.shape == img.shape[:2] and m.dtype == bool and .1 < m.mean() < .4 for m in masks)
    if card == 'eyeq':
        assert not {patient(f) for f in out['train']} & {patient(f) for f in out['test']} and '99_left' not in {f.stem for f in out['files']}
        assert out['lq'] and out['hq'] and not set(out['lq']) & set(out['hq']) and out['dls'].train.dataset.lq.boxes[0][2] > .05
    if card in ('drive', 'chase_db1'): assert not {number(f) for f in out['train']} & {number(f) for f in out['test']}
    if card == 'chase_db1': assert len(out['images']) == 14 and {f.stem[-1] for f in out['train']} == {'L', 'R'}
    if card == 'hrf': assert len(out['images']) == 15 and len(out['train']) == 9 and len(out['test']) == 6
    if card == 'kvasir_seg': assert out['mask'].shape == out['img'].shape[:2] and out['img'].shape[1] < 140 and .1 < out['mask'].mean() < .4
    if card == 'cvc_clinicdb': assert min(abs(int(a.stem) - int(b.stem)) for a in out['train'] for b in out['test']) > 5
    if card == 'ccm':
        assert out['dls'].channels == 1 and out['lq'] and out['hq'] and all(m.any() for m in out['masks'])
        assert min(abs(int(a.stem[4:]) - int(b.stem[4:])) for a in out['train'] for b in out['test']) > 8

def test_every_set_that_is_not_ours_has_code_that_is_tested(root):
    assert {p.stem for p in (root/'data').glob('*.md')} - {'README', 'phantoms', 'retina'} == set(LAYOUTS)

# the real files, where they are at hand ---------------------------------------------------------------------------------------

def test_masks_of_real_sets_are_found(real_data):
    for d, masks, names, n in (('fundus_DRIVE_train/images', '1st_manual', ['{number}_manual1'], 20),
                               ('fundus_DRIVE_train/images', 'mask', ['{stem}_mask'], 20),
                               ('endo_CVC-ClinicDB/images', 'masks', [], 160),
                               ('ccm_NerveStitcher2_sh/lq_proxy', 'pseudo_masks', [], 40)):
        files = list_images(real_data/d); find = mask_finder((real_data/d).parent/masks, *names)
        assert len(files) == n and all(find(f) for f in files) and len({find(f) for f in files}) == n, d
        for f in files[:3]: m = read_mask(find(f)); assert m.dtype == bool and 0 < m.mean() < .9 and m.shape == np.array(Image.open(f)).shape[:2]

def test_groups_of_real_sets_are_those_of_the_manifest(real_data):
    import csv
    with open(real_data/'manifest.csv', newline='') as f: rows = [r for r in csv.DictReader(f) if 'mask' not in r['role'] and 'manual' not in r['role']]
    for name, group in (('fundus_EyeQ400', patient), ('fundus_DRIVE_train', number), ('ccm_NerveStitcher2_sh', blocks(40)),
                        ('endo_CVC-ClinicDB', blocks(25, first=1))):
        ours, theirs = {}, {}
        for r in rows:
            if r['dataset'] == name: ours.setdefault(group(r['path']), set()).add(r['path']); theirs.setdefault(r['group'], set()).add(r['path'])
        assert len(ours) > 4 and sorted(map(sorted, ours.values())) == sorted(map(sorted, theirs.values())), name

def test_the_field_of_view_of_real_frames(real_data):
    "Also where black was recorded as dark grey; and a corneal frame is field of view all over, however dark its corners are"
    for d, low, high in (('endo_CVC-ClinicDB/images', .5, .9), ('ccm_NerveStitcher2_sh/lq_proxy', 1, 1), ('ccm_NerveStitcher2_sh/hq_proxy', 1, 1)):
        odd = {f.name: m for f in list_images(real_data/d) if not low <= (m := fov_mask(read_image(f)).mean()) <= high}; assert not odd
