"""Both qualities of `hqgnet enhance` beside no enhancement, as a table: python bench/quality.py RUN --lq DIR --ref DIR"""
import argparse, sys, tempfile, time
from pathlib import Path
from hqgnet_nb.baselines import evaluate_folders, stems
from hqgnet_nb.core import UserError, read_image, write_image
from hqgnet_nb.enhance import Enhancer

def measure(enhancer, lq, ref, out, quality):
    "(PSNR, SSIM, structure, seconds an image) of one quality on the images of `lq` that have a reference; 'none': no enhancement"
    names, known, seconds = stems(lq), stems(ref), 0
    if not names.keys() & known.keys(): raise UserError(f'{lq} and {ref} share no name')
    used = sorted(names.keys() & known.keys())
    for name in used:
        img = read_image(names[name]); t = time.perf_counter()
        if quality != 'none': img = enhancer.enhance(img, quality=quality)
        seconds += time.perf_counter() - t
        write_image(out/f'{name}.png', img)
    res = evaluate_folders(out, ref)
    for path, why in res['failed']: print(f'left out: {Path(path).name}: {why}', file=sys.stderr)
    row = res['rows'][-1]
    return row['n'], row['psnr'], row['ssim'], row['structure'], seconds/len(used)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('run', metavar='RUN', help='a run of `hqgnet train`')
    p.add_argument('--lq', required=True, metavar='DIR', help='images to enhance')
    p.add_argument('--ref', required=True, metavar='DIR', help='references of the same names')
    p.add_argument('--device', default='cpu', choices=['auto', 'cpu', 'cuda'])
    if len(sys.argv) == 1: p.print_usage(); sys.exit(0)         # `make bench` has no run at hand
    a = p.parse_args()
    try:
        enhancer = Enhancer.load(a.run, a.device)
        print('| quality | n | PSNR (dB) | SSIM | structure | seconds an image |\n|---|--:|--:|--:|--:|--:|')
        for quality in ('none', 'fast', 'full'):
            with tempfile.TemporaryDirectory() as tmp: n, psnr, ssim, structure, s = measure(enhancer, a.lq, a.ref, Path(tmp), quality)
            print(f'| {"no enhancement" if quality == "none" else quality} | {n} | {psnr:.2f} | {ssim:.3f} | {structure:.3f} | {s:.3f} |', flush=True)
    except UserError as e: sys.exit(f'quality: error: {e}')
