"""What a small training must have taught: the guide decides style and not structure, strength moves evenly, black stays black."""
import numpy as np, pytest, torch
from hqgnet_nb.core import list_images, read_image, to_array, to_float, to_tensor
from hqgnet_nb.degrade import degrade_folder
from hqgnet_nb.metrics import structure
from hqgnet_nb.phantoms import write_phantoms

STEPS = 150

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A tiny network after a short training on generated eyes, with held-out inputs and good images"
    from hqgnet_nb.train import train_folders
    tmp = tmp_path_factory.mktemp('method')
    for name, n, seed in (('bad', 16, 0), ('good', 16, 1), ('test', 6, 2), ('guides', 6, 3)): write_phantoms(tmp/name, 'fundus', n, size=72, seed=seed)
    for name, out in (('bad', 'lq'), ('test', 'lq_test')): degrade_folder(tmp/name/'images', tmp/out, 'fundus', seed=0)
    learn = train_folders(tmp/'lq', tmp/'good'/'images', tmp/'run', size=64, steps=STEPS, bar=False)
    read = lambda d: torch.cat([to_tensor(to_float(read_image(f))[4:68, 4:68]) for f in list_images(d)])
    fov = (read(tmp/'test'/'images').amax(1, keepdim=True) > .05).float()
    return learn, read(tmp/'lq_test'), fov, read(tmp/'guides'/'images')

def test_training_changes_the_images_and_the_validation_loss_falls(trained):
    learn, lq, fov, guides = trained
    with torch.no_grad(): assert (learn.best_net()(lq, fov=fov) - lq).abs().mean() > .01
    valid = [r for r in learn.history.rows if r['split'] == 'valid']
    assert valid[-1]['style'] < valid[0]['style'] and valid[-1]['code'] < valid[0]['code']

def test_a_shuffled_guide_changes_style_and_not_structure(trained):
    learn, lq, fov, guides = trained
    net = learn.best_net()
    dark = guides*torch.tensor([.9, .6, .5]).view(1, 3, 1, 1)       # guides of another look, not only of another eye
    with torch.no_grad(): a, b = net(lq, guides, fov=fov), net(lq, dark.flip(0), fov=fov)
    same = [structure(to_array(p), to_array(q), m[0].numpy() > .5) for p, q, m in zip(a, b, fov)]
    assert (a - b).abs().mean() > .005, 'the guide does not matter'
    assert np.mean(same) >= .95, same

def test_strength_zero_is_the_input_and_more_strength_is_more_change(trained):
    learn, lq, fov, guides = trained
    net = learn.best_net()
    with torch.no_grad(): path = [net(lq, guides, strength=s, fov=fov) for s in np.linspace(0, 1, 9)]
    assert torch.equal(path[0], lq)
    change = torch.stack([(x - lq).abs().mean((1, 2, 3)) for x in path])            # strengths x images
    assert (change.diff(dim=0) > 0).all(), change

def test_what_is_black_stays_black(trained):
    learn, lq, fov, guides = trained
    with torch.no_grad(): x = learn.best_net()(lq, fov=fov)
    black = (lq == 0).all(1, keepdim=True).expand_as(lq)
    assert black.any() and (x[black] == 0).all()
