"""What a small training must have taught: the guide decides style and not structure, strength moves evenly, black stays black, no grid."""
import warnings
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
    assert all(valid[-1][k] < valid[0][k] for k in ('total', 'restore', 'code', 'score')), (valid[0], valid[-1])

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

def grid(change, period):
    "How far the spectrum of a change (HxW) stands out at a period, in pixels, along either axis or both: amplitude over that of frequencies on both sides"
    n = change.shape[0]; k = n//period
    window = np.hanning(n + 1)[:-1]; window = np.outer(window, window)
    f = np.abs(np.fft.fft2((change - change.mean())*window))/window.sum()
    # spectra of pictures fall with frequency: pairs as far below as above, or a slow period would stand out in any picture.
    # The window spreads a peak over two neighbours
    near = range(3, min(8, k - 3) + 1)
    worst = 0.
    for at, step in (((k, 0), (1, 0)), ((0, k), (0, 1)), ((k, k), (1, 1)), ((k, k), (1, -1))):
        pairs = [f[(at[0] - d*step[0]) % n, (at[1] - d*step[1]) % n]*f[(at[0] + d*step[0]) % n, (at[1] + d*step[1]) % n] for d in near]
        worst = max(worst, f[at]/max(np.median(pairs)**.5, 1e-4))
    return worst

def test_a_flat_image_stays_flat(trained):
    learn, lq, fov, guides = trained
    net, noise = learn.best_net(), torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for level in (.1, .3, .6, .9):
        flat = torch.full((1, 3, 64, 64), level)
        with torch.no_grad():
            change = (net(flat) - flat)[0]
            changes = [(net(y) - y)[0].mean(0).double().numpy() for y in (flat + .01*noise).clamp(0, 1).split(1)]
        assert change.amax((1, 2)).sub(change.amin((1, 2))).max() < 1e-3, (level, change.amax(), change.amin())
        for period in (2, 4, 8, 16):
            found = np.median([grid(c, period) for c in changes])
            assert found < 3, (level, period, found)

def test_the_change_has_no_grid(trained):
    learn, lq, fov, guides = trained
    net, n = learn.best_net(), 64
    with torch.no_grad():
        changes = [(net(lq[k:k + 1]) - lq[k:k + 1])[0].mean(0).double().numpy() for k in range(len(lq))]
    # slower waves than 8 pixels of 64 belong to the pictures themselves
    for period in (2, 4, 8):
        found = np.median([grid(c, period) for c in changes])
        assert found < 3, (period, found)
    # as transposed convolutions make it, and as a head of small blocks would: the test must see it
    i, j = np.mgrid[:n, :n]
    for period in (2, 4):
        for board in (np.where((i % period == 0) & (j % period == 0), .02, 0.), .02*np.sign(np.sin(2*np.pi*(i + .5)/period))):
            seen = np.median([grid(c + board, period) for c in changes])
            assert seen > 3, (period, seen)

def validated(net, dls, collapse):
    "The warnings of collapse from one validation after step 200, of this network; `collapse`: all images get the same code"
    from hqgnet_nb.learner import HQGLearner
    learn = HQGLearner(dls, 'tiny', seed=0, lr=1e-12)
    learn.model.load_state_dict(net.state_dict())
    if collapse:
        with torch.no_grad(): learn.model.guidance.head.weight.zero_()
    learn.remove_cb(learn.progress); learn.game.step = 201
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always'); learn.train_for(steps=203)
    return [str(w.message) for w in seen if 'collapse' in str(w.message)]

def test_codes_that_collapse_warn(trained):
    learn = trained[0]
    assert not validated(learn.best_net(), learn.dls, False)
    assert validated(learn.best_net(), learn.dls, True)
