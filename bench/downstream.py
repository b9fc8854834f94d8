"""Notebook 23: is a segmenter better off on enhanced images, and does the bi-level loop help? python bench/downstream.py --minutes 6 --seeds 0

Needs HQGNET_DATA, and what bench/results.py left: the frozen segmenters, and the rivals for their rows. Unpaired images are those of bench/real.py. Masked
LQ images: DRIVE's 20, degraded, in four folds; for cornea and endoscopy the LQ images to learn from, tested on the test part. The game is the same for all
solvers up to the moment when the task joins in (two fifths of the minutes), so that part is trained once; it begins with the weights that come with the library
(`--init none`: from nothing). Every row ends by training the same segmenter on
the same masked images, enhanced its way, and measures it on test images enhanced the same way. Beside it: a segmenter that was trained on clean images and
frozen, and a task that no row was trained for: finding the reference's points again, as a registration of two visits would. --masked 4 leaves four groups
their masks, the same for every row of a fold and seed. A line of --out is one test image of one row, fold, seed and number of masks; what is there is not
run again."""
import argparse, csv, os, sys, time
from functools import partial
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np, torch
from skimage.feature import SIFT, match_descriptors
from fastai.callback.core import Callback
from hqgnet_nb.baselines import BASELINES
from hqgnet_nb.bilevel import BiLevel, SOLVERS, choose_strength
from hqgnet_nb.compare import fit_method, slug
from hqgnet_nb.core import fov_mask, list_images, luma, read_image, read_mask, resize, rng, set_seed, to_float, to_tensor, to_uint
from hqgnet_nb.data import patient, unpaired_dls
from hqgnet_nb.enhance import Enhancer
from hqgnet_nb.generator import save_net
from hqgnet_nb.learner import HQGLearner
from hqgnet_nb.metrics import score
from hqgnet_nb.segmenter import Segmenter, segmentation_scores
from hqgnet_nb.tasks import TaskData, find_targets, make_task, refit_task
from hqgnet_nb.train import LR_BEGUN, begin_from
sys.path.insert(0, str(Path(__file__).parent))
from real import digits, prepare
from results import gather, sequence

TASK = dict(fundus='vessels', cornea='nerves', endoscopy='polyps')
GROUP = dict(fundus=patient, cornea=lambda f: str(int(digits(f))//40), endoscopy=sequence)
RIVALS = ('one-sided GAN', 'CycleGAN', 'StillGAN-style', 'paired ceiling')
WARMUP, SIZE = .4, 128
FIELDS = ['data', 'row', 'seed', 'fold', 'name', 'group', 'refit_dice', 'refit_cldice', 'refit_auc', 'refit_sensitivity', 'frozen_dice',
          'frozen_cldice', 'frozen_auc', 'points', 'ssim', 'structure', 'filter_auc', 'seconds', 'task_seconds', 'steps', 'strength', 'masked']

def folds(kind, work, n=4):
    "(masked LQ files to learn from, test files, folder of references, number of the segmenter that has not seen them) for each fold"
    if kind != 'fundus': return [(list_images(work/'lq'), list_images(work/'test'), work/'ref', 0)]
    files = list_images(work/'drive_test'); names = sorted({patient(f) for f in files})       # as in `segmenters` of notebook 15d
    fold = {g: k % n for k, g in enumerate(names)}
    return [([f for f in files if fold[patient(f)] != k], [f for f in files if fold[patient(f)] == k], work/'drive_ref', k) for k in range(n)]

def with_masks(files, kind, n, seed):
    "Those of `n` groups, drawn anew for each seed; all for None"
    if n is None: return files
    names = sorted({GROUP[kind](f) for f in files}); keep = {names[i] for i in rng(seed, 'masked').permutation(len(names))[:n]}
    return [f for f in files if GROUP[kind](f) in keep]

def label(name, init):
    "What a row is called: `alternating@.5` is the network of `alternating` at half strength"
    if name in BASELINES or name in RIVALS: return name
    name, _, strength = name.partition('@')
    return f'HQG-Net, {name}' + f', strength {strength}'*bool(strength) + ('' if init else ', from nothing')

class Halt(Callback):
    "Ends a training at a share of its budget, with a checkpoint"
    order = 79
    def __init__(self, at): self.at = at
    def after_batch(self):
        if self.training and self.budget.frac >= self.at: self.learn.stop_asked = True

def learner(work, out, seed, cbs, init):
    dls = unpaired_dls(work/'lq', work/'hq', SIZE, 4, seed); set_seed(seed)
    begun = dict(net=begin_from(init, 'tiny', dls.channels)[0], lr=LR_BEGUN) if init else {}
    learn = HQGLearner(dls, out=out, seed=seed, cbs=cbs, **begun); learn.remove_cb(learn.progress); return learn

def enhancer(work, out, seed, minutes, solver=None, data=None, task=None, init=None):
    "HQG-Net trained with a solver from the shared beginning on; (image -> image, facts)"
    go = lambda learn: learn.train_for(minutes=minutes, valid_every=100, timer=time.process_time)
    if not (out/'config.json').is_file():
        begin = out.parent/f'begin_{seed}_{minutes:g}'/'begin.pt'
        if not begin.is_file():
            learn = learner(work, begin.parent, seed, [Halt(WARMUP)], init)
            try: go(learn)
            except KeyboardInterrupt:
                if learn.elapsed() < WARMUP*60*minutes: raise
            (begin.parent/'checkpoint.pt').rename(begin)           # whole, and not that of a command that was stopped
        bi = BiLevel(make_task(task, seed=seed), data, solver, warmup=WARMUP) if solver != 'none' else None
        out.mkdir(parents=True, exist_ok=True); learn = learner(work, out, seed, [bi] if bi else [], init)
        learn.load(out/'checkpoint.pt' if (out/'checkpoint.pt').is_file() else begin); go(learn)
        save_net(learn.best_net(), out, size=SIZE, steps=learn.game.step, seconds=round(learn.elapsed()), task_seconds=round(bi.seconds) if bi else 0)
    e = Enhancer.load(out, 'cpu'); return e.enhance, {k: e.config[k] for k in ('seconds', 'task_seconds', 'steps')}

def rows_of(kind, work, seed, minutes, masked, fold, names, init, rivals, n=None, search=200):
    "(name, image -> image, facts) of each row"
    plan = dict(lq=work/'lq', hq=work/'hq', lq_ref=None, size=SIZE, steps=None, minutes=minutes, device='cpu')
    found, channels = find_targets(masked, work/('mask' if kind == 'fundus' else 'seg_mask')), 1 if kind == 'cornea' else 3
    for name in names:
        if name in BASELINES: yield name, fit_method(name, plan, seed, work)[0], {}
        elif name in RIVALS:
            folder = work/'compare'/'runs'/f'{slug(name)}_{rivals}'
            if not (folder/'rival.json').is_file(): print(f'{kind}: no training of {name} in {folder}; run bench/results.py first', flush=True); continue
            yield name, *fit_method(name, plan, rivals, folder)
        else:
            solver, _, strength = name.partition('@'); solver = 'none' if name == 'strength' else solver         # `strength`: as strong as the task wants it
            data = [TaskData(found, make_task(TASK[kind]), SIZE, channels, GROUP[kind], seed=seed)]
            own = (f'{solver}_{seed}', f'{minutes:g}') if solver == 'none' else (f'{solver}_{seed}_{fold}', f'{minutes:g}', *[str(n)]*bool(n))
            out = work/('begun' if init else 'bilevel')/'_'.join(own)
            enhance, facts = enhancer(work, out, seed, minutes, solver, data, TASK[kind], init)
            if name == 'strength':
                t = time.process_time()
                strength, losses = choose_strength(enhance, found, make_task(TASK[kind], seed=seed), SIZE, channels, GROUP[kind], steps=search, seed=seed)
                facts |= dict(task_seconds=round(time.process_time() - t))
                print(kind, fold, 'loss at each strength', {k: round(v, 3) for k, v in losses.items()}, flush=True)
            if strength != '': enhance = partial(enhance, strength=float(strength)); facts |= dict(strength=float(strength))
            yield label(name, init), enhance, facts

def points_found(x, ref, fov, near=2.):
    "Share of the reference's SIFT points inside the field of view whose best match in `x` lies within `near` pixels of them; both at one size and place"
    def points(img):
        sift = SIFT()
        try: sift.detect_and_extract(luma(img))
        except RuntimeError: return np.zeros((0, 2)), None                    # none found
        return sift.keypoints, sift.descriptors
    (p, a), (q, b) = points(ref), points(x); inside = np.array([bool(fov[int(r), int(c)]) for r, c in p], bool)
    if not inside.any(): return float('nan')
    if not len(q): return 0.
    i, j = match_descriptors(a, b, cross_check=True, max_ratio=.9).T
    return float((inside[i] & (np.linalg.norm(p[i] - q[j], axis=1) <= near)).sum()/inside.sum())

def measure(kind, work, method, masked, test, refs, judge, seed, steps):
    "The refitted and the frozen segmenter, and the picture, on each test image"
    load = lambda f: resize(to_float(read_image(f)), SIZE); mask = lambda f, d: resize(read_mask(work/d/f'{f.stem}.png').astype(np.float32), SIZE) > .5
    task = make_task(TASK[kind], seed=seed)
    found = find_targets(masked, work/('mask' if kind == 'fundus' else 'seg_mask'))
    refit_task(task, found, method, SIZE, 1 if kind == 'cornea' else 3, GROUP[kind], steps, seed)
    for f in test:
        y, ref, m = load(f), load(refs/f.name), mask(f, 'mask'); fov = fov_mask(ref); x = to_float(to_uint(method(y)))
        with torch.no_grad(): p = task(to_tensor(x)).sigmoid()[0, 0].numpy()
        s = score(x, ref, fov, None if kind == 'endoscopy' else m)
        both = dict(refit=segmentation_scores(p, m, fov), frozen=segmentation_scores(judge.predict(x), m, fov))
        yield dict(name=f.stem, group=GROUP[kind](f), points=points_found(x, ref, fov), ssim=s['ssim'], structure=s['structure'],
                   filter_auc=s.get('vesselness_auc', ''),
                   **{f'{who}_{k}': v for who, scores in both.items() for k, v in scores.items()})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default=','.join(TASK))
    p.add_argument('--rows', default=','.join([*BASELINES, *RIVALS, *SOLVERS, 'none@.5', 'alternating@.5', 'strength']),
                   help='SOLVER@S: its network at strength S; strength: the network of `none` as strong as the task wants it')
    p.add_argument('--minutes', type=float, default=6.); p.add_argument('--seeds', default='0', help='comma-separated')
    p.add_argument('--masked', type=int, help='groups that have masks to learn from (patients, blocks, sequences), two at least; default: all')
    p.add_argument('--search', type=int, default=200, help='steps of each short training of the row `strength`')
    p.add_argument('--refit', type=int, default=400, help='steps of each segmenter'); p.add_argument('--folds', default='0,1,2,3', help='of the fundus')
    p.add_argument('--init', help="weights to begin with; 'none': from nothing; default: those of the library for the data")
    p.add_argument('--rivals', type=int, help='seed of the trainings of bench/results.py that the rivals\' rows take; default: that of the row')
    p.add_argument('--out', type=Path, default=Path('nbs/results/downstream.csv')); p.add_argument('--work', type=Path, default=Path('runs/real'))
    if len(sys.argv) == 1: p.print_usage(); sys.exit(0)
    a = p.parse_args(); torch.set_num_threads(1)
    if 'HQGNET_DATA' not in os.environ: sys.exit('downstream: set HQGNET_DATA to the folder of the real images first')
    root = Path(os.environ['HQGNET_DATA']); a.out.parent.mkdir(parents=True, exist_ok=True)
    few = '' if a.masked is None else str(a.masked)
    done = {(r['data'], r['row'], r['seed'], r['fold']) for r in csv.DictReader(open(a.out)) if r['masked'] == few} if a.out.exists() else set()
    for kind in a.data.split(','):
        work = a.work/f'{kind}_128'; prepare(kind, root, work, SIZE); gather(kind, root, work, False)
        init = None if a.init == 'none' else a.init or f'{kind}-tiny'
        for seed in map(int, a.seeds.split(',')):
            for k, (masked, test, refs, judge) in enumerate(folds(kind, work)):
                if kind == 'fundus' and str(k) not in a.folds.split(','): continue
                masked, rivals = with_masks(masked, kind, a.masked, seed), seed if a.rivals is None else a.rivals
                left = [n for n in a.rows.split(',') if (kind, label(n, init), str(seed), str(k)) not in done]
                for name, method, facts in rows_of(kind, work, seed, a.minutes, masked, k, left, init, rivals, a.masked, a.search):
                    frozen = Segmenter.load(work/'compare'/f'segmenter_{judge}.safetensors')
                    rows = list(measure(kind, work, method, masked, test, refs, frozen, seed, a.refit))
                    new = not a.out.exists()
                    with open(a.out, 'a', newline='') as f:
                        w = csv.DictWriter(f, FIELDS, extrasaction='ignore', lineterminator='\n')
                        if new: w.writeheader()
                        short = lambda v: f'{v:.4f}' if isinstance(v, float) else v
                        for r in rows: w.writerow({q: short(v) for q, v in dict(data=kind, row=name, seed=seed, fold=k, masked=few, **facts, **r).items()})
                    mean = lambda c, rows=rows: np.nanmean([float(r[c]) for r in rows])
                    print(kind, name, seed, k, few, *[f'{c} {mean(c):.3f}' for c in ('refit_dice', 'frozen_dice', 'points', 'ssim', 'structure')], flush=True)

if __name__ == '__main__': main()
