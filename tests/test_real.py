"""Facts that only real photographs can show; they are found through HQGNET_DATA and skipped without it."""
import numpy as np, pytest
from hqgnet_nb.core import fov_mask, list_images, read_image, resize, to_float, to_tensor
from hqgnet_nb.degrade import degrade, sample_params
from hqgnet_nb.losses import wavelet_content
from hqgnet_nb.metrics import psnr, structure, vesselness_auc

@pytest.fixture(scope='module')
def drive(real_data):
    "DRIVE: photograph, vessels, field of view"
    d = real_data/'fundus_DRIVE_train'
    return [(read_image(f), read_image(d/'1st_manual'/f'{f.stem[:2]}_manual1.gif') > 0, read_image(d/'mask'/f'{f.stem}_mask.gif') > 0)
            for f in list_images(d/'images')[:4]]

def test_the_field_of_view_is_found_in_drive(drive):
    for img, _, fov in drive:
        found = fov_mask(img)
        assert (found & fov).sum()/(found | fov).sum() > .97

def test_the_training_free_filter_finds_drives_vessels_and_fewer_in_degraded_copies(drive):
    clean, bad = [], []
    for k, (img, vessels, fov) in enumerate(drive):
        clean.append(vesselness_auc(to_float(img), vessels, fov)); bad.append(vesselness_auc(degrade(to_float(img), sample_params('fundus', k)), vessels, fov))
    assert np.mean(clean) > .9 and np.mean(bad) < np.mean(clean) - .02, (clean, bad)

def test_degrading_real_photographs_costs_quality_and_keeps_the_eye(drive):
    for k, (img, _, fov) in enumerate(drive):
        img = to_float(img); bad = degrade(img, sample_params('fundus', k))
        assert 8 < psnr(bad, img, fov) < 32 and structure(bad, img, fov) > .1

def test_the_content_term_tells_another_eye_from_another_light(drive):
    a, b = (to_tensor(resize(to_float(drive[k][0]), 128)) for k in (0, 1))
    fov = to_tensor(resize(drive[0][2].astype(np.float32), 128))
    assert float(wavelet_content(a, a**.7, fov)) < .1 < .5 < float(wavelet_content(a, b, fov))

SETS = dict(fundus=('fundus_DRIVE_train/images', 'fundus_DRIVE_train/1st_manual'), cornea=('ccm_NerveStitcher2_sh', 'ccm_NerveStitcher2_sh/pseudo_masks'),
            endoscopy=('endo_CVC-ClinicDB', 'endo_CVC-ClinicDB/masks'))

@pytest.mark.parametrize('kind', SETS)
def test_the_comparison_runs_on_real_images(kind, real_data, tmp_path):
    "`hqgnet compare`, as a user would call it, on a few images of each of the three sets"
    import re
    from hqgnet_nb.cli import main
    from hqgnet_nb.compare import METHODS
    from hqgnet_nb.core import read_mask, write_image
    folder, masks = (real_data/f for f in SETS[kind]); number = lambda f: re.search(r'\d+', f.stem.split('_')[0])[0]
    good = [f for f in list_images(folder) if 'mask' not in f.parent.name][:12]; of = {number(f): f for f in list_images(masks)}
    for k, f in enumerate(good):
        im = resize(to_float(read_image(f)), 96); bad = degrade(im, sample_params(kind, k)); part = ('test', 'lq', 'hq')[k % 3]
        if part != 'hq': write_image(tmp_path/part/f'{f.stem}.png', bad)
        write_image(tmp_path/dict(test='ref', lq='lq_ref', hq='hq')[part]/f'{f.stem}.png', im)
        if part == 'test': write_image(tmp_path/'mask'/f'{f.stem}.png', resize(read_mask(of[number(f)]).astype(np.float32), 96))
    ask = [f'--{k.replace("_", "-")}={tmp_path/k}' for k in ('lq', 'hq', 'lq_ref')]
    ask += [f'--test-{k}={tmp_path/d}' for k, d in dict(lq='test', ref='ref', mask='mask').items()]
    assert main(['compare', *ask, f'--out={tmp_path/"out"}', '--steps=2', '--seeds=1', '--size=64', *['--areas']*(kind == 'endoscopy')]) == 0
    table = (tmp_path/'out/summary.md').read_text().splitlines()
    assert [l.split(' |')[0] for l in table[2:]] == [f'| {m}' for m in METHODS]
    assert (tmp_path/'out/report.html').is_file() and ('vesselness_auc' in table[0]) == (kind != 'endoscopy') and ('ccm_snr' in table[0]) == (kind == 'cornea')
