"""HQG-Net, its variants and the classical rows on real images of three modalities: python bench/real.py --minutes 6 --seeds 0,1,2

Needs HQGNET_DATA. Images are split by patient, region of the eye, or sequence; copies of two parts are degraded with notebook 02 and serve as LQ images to
learn from and, with their originals as references, to measure on. Nothing is trained on the test part. Each row of --out is one method on one data set with one
seed; what is there already is not run again, so a stopped command goes on. One thread for each training, and a clock that counts its own
seconds alone: minutes are minutes of one core, whatever else the machine does."""
import argparse, csv, os, sys, time, warnings
from functools import partial
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np, torch
from fastai.callback.core import Callback
from hqgnet_nb.baselines import BASELINES, gaussian
from hqgnet_nb.core import draw_share, fov_mask, list_images, luma, read_image, resize, set_seed, to_array, to_float, to_tensor, to_uint, write_image
from hqgnet_nb.data import number, patient, split_groups, unpaired_dls
from hqgnet_nb.degrade import degrade, degrade_folder, sample_params
from hqgnet_nb.discriminator import PatchDiscriminator
from hqgnet_nb.enhance import Enhancer
from hqgnet_nb.generator import HQGNet, save_net
from hqgnet_nb.learner import HQGLearner, PRESETS
from hqgnet_nb.losses import HQGLoss, n_style
from hqgnet_nb.metrics import auc, score
from hqgnet_nb.phantoms import phantom, write_phantoms
from hqgnet_nb.train import LR_BEGUN, begin_from              # and gives a learner train_for

FIELDS = ['data', 'pixels', 'variant', 'seed', 'minutes', 'steps', 'seconds', 'method', 'n', 'psnr', 'ssim', 'structure', 'vesselness_auc', 'hq_psnr',
          'best_on_way', 'last_on_way', 'rule_on_way', 'rho_score', 'active_z', 'separation', 'rho_doubt', 'rho_pooled', 'rho_codes', 'd_memory', 'd_skill']
VARIANTS = dict(base={}, no_restore=dict(weights=dict(restore=0.)), no_adversary=dict(weights=dict(adv=0.)), no_wavelet=dict(weights=dict(wavelet=0.)),
                no_style=dict(weights=dict(style=0.)), no_encoder=dict(weights=dict(encoder=0.)),
                only_restore=dict(weights=dict(adv=0., wavelet=0., encoder=0., consistency=0., style=0.)),
                no_bands=dict(bands=0), difference_head=dict(head='difference'), fine_band=dict(levels=(1, 2, 3)), any_corruption=dict(matched=0.),
                whole_batch=dict(played=1.), half_batch=dict(played=.5), small_batch=dict(bs=2), whole_images=dict(levels_of_scale=0), slow_g=dict(lr=1e-3),
                fast_g=dict(lr=4e-3), less_wavelet=dict(weights=dict(wavelet=2.)), less_restore=dict(weights=dict(restore=10.)),
                # the discriminator's
                no_r1=dict(r1=0.), strong_r1=dict(r1=.2), every_r1=dict(r1_every=1), slow_d=dict(d_lr=2e-4), fast_d=dict(d_lr=2e-3), hinge=dict(gan='hinge'),
                no_augment=dict(shift=None), two_scales=dict(scales=2),
                # goes wrong on purpose, for the rule that chooses checkpoints
                unruly=dict(weights=dict(adv=4., wavelet=0., encoder=0., consistency=0., restore=0.), lr=3e-3),
                # one part out or exchanged
                no_guide=dict(guide=False), sigmoid_head=dict(head='sigmoid'), adain=dict(rho=1), adaln=dict(rho=0), no_ema=dict(ema=0.),
                haar=dict(wavelet='haar'), sym4=dict(wavelet='sym4'), coarse_band=dict(levels=(3,)), no_code=dict(weights=dict(code=0.)),
                no_consistency=dict(weights=dict(consistency=0.)), no_kl=dict(weights=dict(kl=0.)), no_doubt=dict(weights=dict(doubt=0.)),
                # how much of what the paired ceiling is ahead by is knowledge? `exact`: good images are spoiled as the bad ones were, which nobody knows
                exact=dict(exact=True),
                exact_free=dict(exact=True, clean=0., guideless=1., weights=dict(adv=0., wavelet=0., encoder=0., consistency=0., style=0.)),
                free=dict(clean=0., guideless=1.),           # nothing but spoiled images to restore, and no guide in it
                free_only=dict(clean=0., guideless=1., weights=dict(adv=0., wavelet=0., encoder=0., consistency=0., style=0.)),
                begun=dict(begun=True))                      # from the weights that come with the library
# no training: the networks of `base`, guided otherwise
GUIDES = dict(guide_other='a good image, each time another', guide_shuffled='such an image, its squares of 8 pixels shuffled', guide_self='the input itself',
              guide_wrong='a generated image of another modality')
FLIPPED = 'flipped'              # the network of `base` too: the mean over an image's eight flips and quarter turns
BLURS = 'blurs'                  # the Gaussian of notebook 12 with other sigmas; nothing is trained
SIGMAS = (.5, .7, 1., 1.4)       # pixels
GENERATED = dict(generated_fundus='fundus', generated_cornea='cornea', generated_endoscopy='endoscopy')

def parts(kind, root, valid=False):
    "Lists of good images: to degrade and learn from, to learn from as they are, to measure on; no group in two of them. `valid`: none of the test part"
    if kind == 'cornea':            # frames of one eye: two blocks lie between those learned from and those tested on
        at = lambda *b: [f for f in list_images(root/'ccm_NerveStitcher2_sh'/'hq_proxy') if int(digits(f))//40 in b]
        return (at(0, 4, 5), at(6), at(7)) if valid else (at(0, 4, 5), at(6, 7), at(10, 11))
    folder, group = (root/'fundus_EyeQ400'/'good', patient) if kind == 'fundus' else (root/'endo_CVC-ClinicDB'/'images', lambda f: str(int(number(f))//25))
    lq, hq, test = split_groups(list_images(folder), (.4, .4), group)
    return split_groups(lq + hq, (.4, .4), group, seed=1) if valid else (lq, hq, test)

def digits(f): return ''.join(c for c in Path(f).stem if c.isdigit())

def prepare(kind, root, work, pixels, valid=False):
    "Folders lq, hq, test, ref (and drive_test, drive_ref) below work"
    if (work/'done').exists(): return
    def copy(files, to, side):
        for f in files:
            img = to_float(read_image(f))
            if kind == 'cornea': img = luma(img)                 # grey stored as three equal channels
            if side: img = resize(img, side)
            write_image(work/to/f'{f.stem}.png', to_uint(img))
    larger = round((pixels or 384)*1.1)
    if kind in GENERATED:
        for k, (name, n, side) in enumerate((('lq_ref', 60, larger), ('hq', 60, larger), ('ref', 30, pixels or 384))):
            write_phantoms(work/'made'/name, GENERATED[kind], n, side, seed=200 + k + 10*valid)
            (work/'made'/name/'images').rename(work/name)
    else:
        for files, name, side in zip(parts(kind, root, valid), ('lq_ref', 'hq', 'ref'), (larger, larger, pixels)): copy(files, name, side if pixels else 0)
    if kind == 'fundus' and not valid: copy(list_images(root/'fundus_DRIVE_train'/'images'), 'drive_ref', pixels)
    # a seed for each part: the degradations of the test are not those of the training
    for seed, (a, b) in enumerate((('lq_ref', 'lq'), ('ref', 'test'), ('drive_ref', 'drive_test'))):
        if (work/a).exists(): degrade_folder(work/a, work/b, GENERATED.get(kind, kind), seed=100 + seed, overwrite=True)
    (work/'done').touch()

def structure_masks(data, root, work, pixels):
    "Masks by the digits of the image's name: DRIVE's vessels, by hand; the cornea's nerves, traced by a machine; the phantoms' own; None for other data"
    folder = {'DRIVE': root/'fundus_DRIVE_train/1st_manual', 'cornea': root/'ccm_NerveStitcher2_sh/pseudo_masks',
              **dict.fromkeys(('generated_fundus', 'generated_cornea'), work/'made/ref/masks')}.get(data)
    if folder is None: return None
    grey = lambda f: luma(to_float(read_image(f)))
    return {digits(f.stem.split('_')[0]): (resize(grey(f), pixels) if pixels else grey(f)) > .5 for f in list_images(folder)}

def measure(enhance, work, lq, ref, masks=None):
    "Mean scores of a function from image to image"
    rows = []
    for f in list_images(work/ref):
        y, good = to_float(read_image(work/lq/f.name)), to_float(read_image(f))
        m = masks and masks.get(digits(f.stem.split('_')[0]))
        rows.append(score(to_float(to_uint(enhance(y))), good, fov=fov_mask(good), vessels=m))   # as a file of 8 bits holds it
    return {k: float(np.mean([min(r[k], 100) for r in rows])) for k in rows[0]} | dict(n=len(rows))      # PSNR of equal images: 100, as in the tables

class Drawn(Enhancer):
    "What a network with the figure's plain sigmoid makes of an image, at the training size: it has no change to apply, it draws the image anew"
    def __init__(self, net, size, device):
        self.net, self.size, self.device, self.config, self.channels, self.engine = net.eval(), size, torch.device(device), {}, net.config['channels'], None
    @torch.no_grad()
    def enhance(self, img, strength=1., guide=None, quality='auto', kept=None):
        x, fov = self.small(img); out = self.net(x, code=self.guide_code(guide), strength=strength, fov=fov)[0].permute(1, 2, 0).numpy()
        return resize(out.squeeze(), img.shape[:2])

def enhancer(net): return (Drawn if net.head == 'sigmoid' else Enhancer)(net, 128, 'cpu')

class Way(Callback):
    "SSIM of the averaged weights, with the average code, at every validation; some test images at the training size"
    order = 75
    def __init__(self, pairs): self.pairs, self.ssim = pairs, []
    def after_validate(self):
        if not self.learn.fitting or not self.history.rows or (self.ssim and self.ssim[-1][0] == self.game.step) or not self.learn.due: return
        from hqgnet_nb.metrics import ssim
        e = enhancer(self.ema.net)
        self.ssim.append((self.game.step, float(np.mean([ssim(e.enhance(y), r, fov_mask(r)) for y, r in self.pairs]))))

def spearman(a, b):
    "Rank correlation"
    r = [np.argsort(np.argsort(t.ravel())) for t in (a, b)]
    return float(np.corrcoef(*r)[0, 1])

def tells_error(e, work, lq, ref):
    "Rank correlation of the error inside the field of view with the expected error (mean over images; all pixels pooled) and the spread over codes"
    out, pool = [], []
    for f in list_images(work/ref):
        y, good = to_float(read_image(work/lq/f.name)), to_float(read_image(f)); m = fov_mask(good)
        err = np.abs(e.enhance(y) - good); err = err if err.ndim == 2 else err.mean(-1)
        doubt = e.uncertainty(y); pool.append((err[m], doubt[m]))
        out.append([spearman(err[m], u[m]) for u in (doubt, e.spread(y, 6))])
    return dict(zip(('rho_doubt', 'rho_codes'), map(float, np.mean(out, 0)))) | dict(rho_pooled=spearman(*map(np.concatenate, zip(*pool))))

@torch.no_grad()
def judge(learn, e, work):
    "How often the discriminator prefers a good image it learned from to one it did not (½: no memory), and such a one to an enhanced image (skill)"
    hq, size = learn.dls.train.dataset.hq, learn.dls.size; disc = learn.game.disc.eval(); load = lambda f: resize(to_float(read_image(f)), size)
    verdict = lambda x: float(disc(x).mean())
    known = [verdict(hq.view(k, size)[0][None]) for k in range(len(hq))]
    new = [verdict(to_tensor(load(f))) for f in list_images(work/'ref')]
    fake = [verdict(to_tensor(e.enhance(load(f)))) for f in list_images(work/'test')]
    prefers = lambda a, b: auc(np.array(a + b), np.arange(len(a) + len(b)) < len(a))
    return dict(d_memory=prefers(known, new), d_skill=prefers(new, fake))

def spoil_exactly(kind, share):
    "In place of the game's `spoil`: notebook 02 itself, by other seeds than those of the LQ images; `share` of the copies left as they are"
    def spoil(good, fov, gen):
        clean, out = draw_share(torch.rand, len(good), generator=gen) < share, []
        for x, f, same in zip(good, fov, clean):
            p = sample_params(kind, int(torch.randint(2**31 - 1, (1,), generator=gen)))
            out.append(x[None] if same else to_tensor(degrade(to_array(x), p, f[0].numpy() > .5)))
        return torch.cat(out).contiguous(memory_format=torch.channels_last), clean
    return spoil

class NoGuide(HQGNet):
    "The code of the guide is zero, in training and afterwards"
    def forward(self, lq, hq=None, strength=1., sample=None, fov=None, hq_fov=None, code=None, stats=None, full=False, known=None):
        return super().forward(lq, None, strength, sample, fov, None, self.mean_code.new_zeros(len(lq), self.mean_code.shape[1]), stats, full, known)

def guided(variant, work, seed):
    "The `base` of a seed as a function of the image alone, guided as `GUIDES` says, or `FLIPPED`"
    e, gen = Enhancer.load(work/f'base_{seed}', 'cpu'), np.random.default_rng(seed)
    if variant == FLIPPED:
        turn = lambda im, k, back=False: np.rot90(im[:, ::-1] if k > 3 and not back else im, -k if back else k)
        undo = lambda im, k: turn(im, k, True)[:, ::-1] if k > 3 else turn(im, k, True)
        return lambda y: np.mean([undo(e.enhance(np.ascontiguousarray(turn(y, k))), k) for k in range(8)], 0)
    hq = [to_float(read_image(f)) for f in list_images(work/'hq')]
    other = next(k for k in ('endoscopy', 'cornea', 'fundus') if k not in work.name)
    strange = [phantom(other, 128, 300 + s)['image'] for s in range(8)]
    def shuffled(im):
        n = 128//8; t = resize(im, 128).reshape(n, 8, n, 8, -1).transpose(0, 2, 1, 3, 4).reshape(n*n, 8, 8, -1)
        return gen.permutation(t).reshape(n, n, 8, 8, -1).transpose(0, 2, 1, 3, 4).reshape(128, 128, -1).squeeze()
    like = lambda g, y: g if g.ndim == y.ndim else luma(g) if y.ndim == 2 else np.repeat(g[..., None], 3, -1)
    pick = lambda of: of[int(gen.integers(len(of)))]
    guide = dict(guide_other=lambda y: pick(hq), guide_shuffled=lambda y: shuffled(pick(hq)), guide_self=lambda y: y,
                 guide_wrong=lambda y: like(pick(strange), y))[variant]
    return lambda y: e.enhance(y, guide=guide(y))

def train(kind, work, variant, seed, minutes, steps):
    "An `Enhancer` and what is to be said about its training"
    v = dict(VARIANTS[variant]); p = PRESETS['tiny']; torch.set_num_threads(1)
    dls = unpaired_dls(work/'lq', work/'hq', 128, v.pop('bs', p['bs']), seed, levels=v.pop('levels_of_scale', 2))
    crit = HQGLoss(v.pop('weights', None), **{k: v.pop(k) for k in ('levels', 'gan', 'wavelet') if k in v})
    shape = {k: v.pop(k) for k in ('head', 'bands') if k in v}; rho, guide, exact = v.pop('rho', None), v.pop('guide', True), v.pop('exact', False)
    set_seed(seed); net = (HQGNet if guide else NoGuide)(dls.channels, p['widths'], p['guide_widths'], n_probe=n_style(dls.channels), **shape)
    if v.pop('begun', False): net, v['lr'] = begin_from(f'{GENERATED.get(kind, kind)}-tiny', 'tiny', dls.channels)[0], LR_BEGUN
    if rho is not None:
        for b in net.vin: b.rho_logit.requires_grad_(False).fill_(40.*rho - 20)
    disc = PatchDiscriminator(dls.channels, p['d_widths'], scales=v.pop('scales')) if 'scales' in v else None
    small = lambda f: resize(to_float(read_image(f)), 128)
    way = Way([(small(work/'test'/f.name), small(f)) for f in list_images(work/'ref')[:12]])
    learn = HQGLearner(dls, net=net, disc=disc, crit=crit, seed=seed, cbs=way, **v); learn.remove_cb(learn.progress)
    if exact: learn.game.matched, learn.game.spoil = 0., spoil_exactly(GENERATED.get(kind, kind), learn.game.clean)
    learn.train_for(steps=steps, minutes=None if steps else minutes, valid_every=50, choose='last', timer=time.process_time)
    last = [r for r in learn.history.rows if r['split'] == 'valid'][-1]
    score = {r['step']: r['score'] for r in learn.history.rows if 'score' in r}; judged = np.array([(score[k], s) for k, s in way.ssim if k in score])
    facts = dict(steps=learn.game.step, seconds=round(learn.elapsed()), best_on_way=max(s for _, s in way.ssim), last_on_way=way.ssim[-1][1],
                 rule_on_way=float(judged[judged[:, 0].argmin(), 1]), rho_score=spearman(*judged.T))     # what `choose='rule'` would have kept
    save_net(learn.best_net(), work/f'{variant}_{seed}', size=128, steps=facts['steps'], seconds=facts['seconds'])
    e = enhancer(learn.best_net())
    return e, facts | {k: last[k] for k in ('active_z', 'separation')} | judge(learn, e, work)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='fundus,cornea,endoscopy', help=f'also {", ".join(GENERATED)}: phantoms')
    p.add_argument('--variants', default='base', help=', '.join([*VARIANTS, *GUIDES, FLIPPED, BLURS]))
    p.add_argument('--minutes', type=float, default=6.); p.add_argument('--steps', type=int); p.add_argument('--seeds', default='0,1,2', help='comma-separated')
    p.add_argument('--pixels', type=int, default=128, help='side of the images; 0: as they are')
    p.add_argument('--valid', action='store_true', help='learn from and measure on the training part alone, to choose by')
    p.add_argument('--out', type=Path, default=Path('nbs/results/real.csv')); p.add_argument('--work', type=Path, default=Path('runs/real'))
    if len(sys.argv) == 1: p.print_usage(); sys.exit(0)
    a = p.parse_args()
    if 'HQGNET_DATA' not in os.environ and set(a.data.split(',')) - set(GENERATED):
        sys.exit(f'real: set HQGNET_DATA to the folder of the real images first, or ask for --data {",".join(GENERATED)}')
    root = Path(os.environ.get('HQGNET_DATA', '.')); a.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(r['data'], r['pixels'], r['variant'], r['seed']) for r in csv.DictReader(open(a.out))} if a.out.exists() else set()
    def write(**row):
        new = not a.out.exists()
        with open(a.out, 'a', newline='') as f:
            w = csv.DictWriter(f, FIELDS, extrasaction='ignore', lineterminator='\n')
            if new: w.writeheader()
            w.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
        shown = [f'{k} {row[k]:.3f}' for k in ('psnr', 'ssim', 'structure', 'vesselness_auc', 'hq_psnr') if k in row]
        print(row['data'], row['variant'], row['seed'], row['method'], *shown, flush=True)
    for kind in a.data.split(','):
        work = a.work/f'{kind}_{a.pixels}{"_valid" if a.valid else ""}'; prepare(kind, root, work, a.pixels, a.valid)
        sets = [(kind, 'test', 'ref')] + ([('DRIVE', 'drive_test', 'drive_ref')] if kind == 'fundus' and not a.valid else [])
        sets = [(*s, structure_masks(s[0], root, work, a.pixels)) for s in sets]
        if (kind, str(a.pixels), 'classical', '') not in done:      # the rows to beat, once
            good = [to_float(read_image(f)) for f in list_images(work/'hq')]
            for name, make in BASELINES.items():
                f = make(good)
                for d, lq, ref, masks in sets:
                    write(data=d, pixels=a.pixels, variant='classical', seed='', method=name, **measure(f, work, lq, ref, masks))
        for variant in a.variants.split(','):
            if variant == BLURS:
                if (kind, str(a.pixels), BLURS, '') in done: continue
                for sigma in SIGMAS:
                    for d, lq, ref, masks in sets:
                        blurred = measure(partial(gaussian, sigma=sigma), work, lq, ref, masks)
                        write(data=d, pixels=a.pixels, variant=BLURS, seed='', method=f'Gaussian {sigma:g}', **blurred)
                continue
            for seed in map(int, a.seeds.split(',')):
                if (kind, str(a.pixels), variant, str(seed)) in done: continue
                if variant in (*GUIDES, FLIPPED):
                    if not (work/f'base_{seed}').exists(): sys.exit(f'real: {variant} asks the network of base with seed {seed}; run that first')
                    with warnings.catch_warnings():                    # of a guide of another kind: this is what is asked for
                        warnings.simplefilter('ignore')
                        for d, lq, ref, masks in sets:
                            scores = measure(guided(variant, work, seed), work, lq, ref, masks)
                            write(data=d, pixels=a.pixels, variant=variant, seed=seed, minutes='', method='HQG-Net', **scores)
                    continue
                e, facts = train(kind, work, variant, seed, a.minutes, a.steps)
                hq = measure(e.enhance, work, 'ref', 'ref')['psnr']            # good images that were never trained on, put in as they are
                for d, lq, ref, masks in sets:
                    write(data=d, pixels=a.pixels, variant=variant, seed=seed, minutes='' if a.steps else a.minutes, method='HQG-Net', hq_psnr=hq, **facts,
                          **tells_error(e, work, lq, ref), **measure(e.enhance, work, lq, ref, masks))

if __name__ == '__main__': main()
