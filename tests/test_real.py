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
