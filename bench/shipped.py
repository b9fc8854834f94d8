"""The weights that come with the library beside the simple methods, image by image, on real images: python bench/shipped.py

Needs HQGNET_DATA; nothing is trained, so it takes some minutes. Of good images, spoiled as in bench/real.py (its test parts, 128 pixels), everything is
measured that a reference allows, and `hq_psnr`: what is left of the good image itself when it is put in. Of images that a camera made bad there is no
reference: EyeQ's photographs that people graded as usable or to be rejected, and the cornea's frames of lowest contrast. There the network of notebook 11c
says how likely an image is a good one (`p_good`), and `changed` is the share of the structure that is found before or after, and not in both (11b). --out
gets a line for each image and method; images have numbers in place of names, groups are those of the data sets."""
import argparse, csv, os, sys
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
from hqgnet_nb.baselines import BASELINES
from hqgnet_nb.changes import changes
from hqgnet_nb.compare import measure
from hqgnet_nb.core import fov_mask, list_images, luma, read_image, resize, to_float, to_uint
from hqgnet_nb.data import number, patient
from hqgnet_nb.enhance import Enhancer
from hqgnet_nb.features import grades
from hqgnet_nb.metrics import psnr
sys.path.insert(0, str(Path(__file__).parent))
from real import digits, prepare, structure_masks

FIELDS = ['data', 'name', 'group', 'method', 'psnr', 'ssim', 'structure', 'vesselness_auc', 'invented', 'lost', 'hq_psnr', 'p_good', 'changed']
GROUP = dict(fundus=patient, DRIVE=digits, cornea=lambda f: int(digits(f))//40, endoscopy=lambda f: int(number(f))//25)
TAKEN = {'EyeQ, usable': ('fundus', 'fundus_EyeQ400/usable'), 'EyeQ, reject': ('fundus', 'fundus_EyeQ400/reject'),
         'cornea, low contrast': ('cornea', 'ccm_NerveStitcher2_sh/lq_proxy')}             # as a camera took them

def methods(kind, work):
    "{name: function of an image}: the simple ones, and the weights"
    good = [to_float(read_image(f)) for f in list_images(work/'hq')]
    return {n: make(good) for n, make in BASELINES.items()} | {'shipped weights': Enhancer.from_pretrained(f'{kind}-tiny', 'cpu').enhance}

def spoiled(data, lq, ref, masks, work, does):
    "Lines of a data set with references"
    for k, f in enumerate(list_images(work/ref)):
        y, good = to_float(read_image(work/lq/f.name)), to_float(read_image(f)); fov = fov_mask(good)
        item = dict(lq=y, ref=good, mask=masks and masks.get(digits(f.stem.split('_')[0])), fov=fov, rates=masks is not None or data != 'endoscopy')
        for method, does_it in does.items():
            left = min(psnr(to_float(to_uint(does_it(good))), good, fov), 100.)
            yield dict(data=data, name=k, group=GROUP[data](f), method=method, hq_psnr=left, **measure(does_it(y), item))

def taken(data, folder, does, side):
    "Lines of a folder of images as they were taken"
    files = list_images(folder); images = [to_float(to_uint(resize(to_float(read_image(f)), side))) for f in files]
    if grey := data.startswith('cornea'): images = [to_float(to_uint(luma(im))) for im in images]        # three equal channels
    group = GROUP['cornea' if grey else 'fundus']
    for method, does_it in does.items():
        results = [to_float(to_uint(does_it(y))) for y in images]; p = grades(results)[:, 0]
        for k, (f, y, x) in enumerate(zip(files, images, results)):
            yield dict(data=data, name=k, group=group(f), method=method, p_good=p[k], changed=changes(x, y, fov=fov_mask(y))[0]['changed'])

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='fundus,cornea,endoscopy'); p.add_argument('--pixels', type=int, default=128, help='side of the images')
    p.add_argument('--out', type=Path, default=Path('nbs/results/shipped.csv')); p.add_argument('--work', type=Path, default=Path('runs/real'))
    a = p.parse_args()
    if 'HQGNET_DATA' not in os.environ: sys.exit('shipped: set HQGNET_DATA to the folder of the real images first')
    root, rows = Path(os.environ['HQGNET_DATA']), []
    for kind in a.data.split(','):
        work = a.work/f'{kind}_{a.pixels}'; prepare(kind, root, work, a.pixels); does = methods(kind, work)
        for data, lq, ref in [(kind, 'test', 'ref')] + [('DRIVE', 'drive_test', 'drive_ref')]*(kind == 'fundus'):
            rows += spoiled(data, lq, ref, structure_masks(data, root, work, a.pixels), work, does); print(data, len(rows), 'lines so far', flush=True)
        for data, (of, folder) in TAKEN.items():
            if of == kind: rows += taken(data, root/folder, does, a.pixels); print(data, len(rows), 'lines so far', flush=True)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    with open(a.out, 'w', newline='') as f:
        w = csv.DictWriter(f, FIELDS, extrasaction='ignore', lineterminator='\n'); w.writeheader()
        w.writerows({k: f'{v:.4g}' if isinstance(v, float) else v for k, v in r.items()} for r in rows)

if __name__ == '__main__': main()
