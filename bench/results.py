"""The tables of notebook 21: every method on six data sets, by `hqgnet compare`: python bench/results.py --minutes 6 --seeds 3

Needs HQGNET_DATA for the real images; generated ones need nothing. The parts are those of bench/real.py; the fundus test part has DRIVE's images too, whose
vessels were traced by hand. --out gets a file for each data set, a line for each test image, method and seed. All data sets get their first seed, then all
their second: a stopped command leaves whole seeds, and goes on where it was stopped. Minutes are of one core.
Of generated images, which may be shown, the grid and the curves of the losses are kept too."""
import argparse, csv, os, shutil, sys
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch
from hqgnet_nb.compare import METHODS, compare_methods, finished_rows
from hqgnet_nb.comparison import comparison_report
from hqgnet_nb.core import list_images, read_image, write_image
sys.path.insert(0, str(Path(__file__).parent))
from real import GENERATED, digits, prepare

MASKS = dict(cornea='ccm_NerveStitcher2_sh/pseudo_masks', endoscopy='endo_CVC-ClinicDB/masks', DRIVE='fundus_DRIVE_train/1st_manual')

def gather(kind, root, work, valid):
    "What `compare_methods` is given for one data set: folders of images, references and masks under one name each"
    def put(files, to, prefix=''):
        for f in files: write_image(work/to/f'{prefix}{f.stem}.png', read_image(f))
    def masks(images, to, folder):
        of = {digits(f.stem.split('_')[0]): f for f in list_images(folder)}
        for f in images: write_image(work/to/f'{f.stem}.png', read_image(of[digits(f.stem.split('_')[0])]))
    ask = {k: work/k for k in ('lq', 'hq', 'lq_ref')} | dict(test_lq=work/'test', test_ref=work/'ref')
    kinds, drive = GENERATED.get(kind, kind), kind == 'fundus' and not valid
    if drive: ask |= dict(test_lq=work/'all_test', test_ref=work/'all_ref', test_mask=work/'mask', seg_images=work/'drive_ref', seg_masks=work/'mask')
    elif kind != 'fundus': ask |= dict(test_mask=work/'mask', seg_images=work/'seg', seg_masks=work/'seg_mask')
    if kinds == 'endoscopy': ask |= dict(areas=True, seg_steps=1200)
    if kind in GROUP: ask |= dict(group=GROUP[kind])
    if (work/'gathered').exists(): return ask
    if drive:
        for part in ('test', 'ref'): put(list_images(work/part) + list_images(work/f'drive_{part}'), f'all_{part}')
        masks(list_images(work/'drive_ref'), 'mask', root/MASKS['DRIVE'])
    elif kind in GENERATED:                                    # the parts' phantoms have the same names
        put(list_images(work/'made/ref/masks'), 'mask')
        for part in ('lq_ref', 'hq'): put(list_images(work/part), 'seg', f'{part}_'); put(list_images(work/'made'/part/'masks'), 'seg_mask', f'{part}_')
    elif kind in MASKS:
        put(good := list_images(work/'lq_ref') + list_images(work/'hq'), 'seg'); masks(good, 'seg_mask', root/MASKS[kind])
        masks(list_images(work/'ref'), 'mask', root/MASKS[kind])
    (work/'gathered').touch()
    return ask

def sequence(path):
    "CVC-ClinicDB: 25 consecutive numbers are about a sequence"
    return str(int(digits(path))//25)

def block(path):
    "The corneal frames are of one eye; 40 consecutive numbers are about one place in it"
    return str(int(digits(path))//40)

GROUP = dict(endoscopy=sequence, cornea=block)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default=','.join(['fundus', 'cornea', 'endoscopy', *GENERATED]))
    p.add_argument('--methods', help=f'with commas between, of {", ".join(METHODS)}; default: all')
    p.add_argument('--minutes', type=float, default=6.); p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--valid', action='store_true', help='learn from and measure on the training part alone, to choose by')
    p.add_argument('--out', type=Path, default=Path('nbs/results')); p.add_argument('--work', type=Path, default=Path('runs/real'))
    if len(sys.argv) == 1: p.print_usage(); sys.exit(0)
    a = p.parse_args(); torch.set_num_threads(1); a.out.mkdir(parents=True, exist_ok=True)
    if 'HQGNET_DATA' not in os.environ and set(a.data.split(',')) - set(GENERATED):
        sys.exit(f'results: set HQGNET_DATA to the folder of the real images first, or ask for --data {",".join(GENERATED)}')
    root = Path(os.environ.get('HQGNET_DATA', '.'))
    for seeds in range(1, a.seeds + 1):
        for kind in a.data.split(','):
            work = a.work/f'{kind}_128{"_valid" if a.valid else ""}'; prepare(kind, root, work, 128, a.valid); ask = gather(kind, root, work, a.valid)
            out = work/'compare'; methods = [m.strip() for m in a.methods.split(',')] if a.methods else METHODS
            def say(line, kind=kind, out=out):
                print(kind, line, flush=True)
                if not (out/'results.csv').is_file(): return
                with open(out/'results.csv', newline='') as f: rows = list(csv.DictReader(f))
                with open(a.out/f'compare_{kind}.csv', 'w', newline='') as f:      # shorter numbers: it is kept with the project
                    w = csv.DictWriter(f, rows[0], lineterminator='\n'); w.writeheader()
                    w.writerows({k: f'{float(v):.4g}' if '.' in v and k not in ('name', 'group') else v for k, v in r.items()} for r in rows)
            init = f'{kind}-tiny' if 'HQG-Net' in methods and kind not in GENERATED else None
            compare_methods(**ask, out=out, methods=methods, minutes=a.minutes, seeds=seeds, init=init, say=say); say(f'{seeds} seed(s) done')
            comparison_report(out, finished_rows(out))
            for name in ('grid.jpg', 'curves.png'):
                if kind in GENERATED and (out/name).is_file(): shutil.copy(out/name, a.out/f'{Path(name).stem}_{kind}{Path(name).suffix}')

if __name__ == '__main__': main()
