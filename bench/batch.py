"""Folders enhanced, beside the network alone on the same images in memory, as ratios in one run, and how the time grows with the files.

python bench/batch.py [N …] [--sides 128 …]
"""
import argparse, json, shutil, statistics, sys, tempfile, time
from pathlib import Path
import numpy as np
from hqgnet_nb.batch import enhance_folder
from hqgnet_nb.core import list_images, read_image, to_uint, write_image
from hqgnet_nb.degrade import degrade, sample_params
from hqgnet_nb.enhance import Enhancer
from hqgnet_nb.phantoms import phantom
from large import by_itself, peak    # its neighbour here

def seconds(f):
    t = time.perf_counter(); f()
    return time.perf_counter() - t

def naive(en, src, out):
    "One thing at a time"
    for f in list_images(src): write_image(out/f'{f.stem}.png', en.enhance(read_image(f)))

def memory(src, out):
    "Most MiB of a process that enhances a folder with sidecars and scores, and before it began"
    en = Enhancer.from_pretrained('fundus-tiny'); before = peak(); enhance_folder(en, src, out); print(json.dumps([peak(), before]))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('n', nargs='*', type=int, default=[10, 100, 1000], help='files in a folder')
    p.add_argument('--sides', nargs='+', type=int, default=[128], help='of the images, pixels')
    p.add_argument('--memory', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.memory: memory(*a.memory); sys.exit()
    en, home = Enhancer.from_pretrained('fundus-tiny'), Path(tempfile.mkdtemp())
    print('throughput as a share of the network alone (1 = no time lost), medians of 3 runs, of 9 below 100 files\n')
    print('| side, pixels | files | network alone, images/s | one thing at a time | batch, no sidecars | batch, sidecars and scores | seconds of that '
          '| peak of the process, MiB | before, MiB |')
    print('|--:'*9 + '|')
    for side in a.sides:
        few = [to_uint(degrade((e := phantom('fundus', side, seed=k))['image'], sample_params('fundus', k), e['fov']).clip(0, 1)) for k in range(4)]
        for x in few: en.enhance(x)
        points = []
        for n in sorted(a.n):
            src, rows = home/f'in{side}_{n}', []
            for k in range(n): write_image(src/f'{k:05d}.png', few[k % 4])
            for r in range(3 if n >= 100 else 9):
                alone = seconds(lambda: [en.enhance(few[k % 4]) for k in range(n)])                              # noqa: B023  called at once
                ways = [lambda o: naive(en, src, o), lambda o: enhance_folder(en, src, o, sidecar=False), lambda o: enhance_folder(en, src, o)]     # noqa: B023
                rows.append((alone, *(seconds(lambda: f(home/f'out{r}_{k}')) for k, f in enumerate(ways))))        # noqa: B023
                for k in range(len(ways)): shutil.rmtree(home/f'out{r}_{k}')
            alone, took = (statistics.median(r[k] for r in rows) for k in (0, 3)); share = [statistics.median(r[0]/r[k] for r in rows) for k in (1, 2, 3)]
            most, before = by_itself(__file__, '--memory', src, home/'memory'); shutil.rmtree(home/'memory'); shutil.rmtree(src); points.append((n, took))
            print(f'| {side} | {n} | {n/alone:.1f} | {share[0]:.2f} | {share[1]:.2f} | {share[2]:.2f} | {took:.2f} | {most:.0f} | {before:.0f} |', flush=True)
        grown = f'seconds grow with the files to the power of {np.polyfit(*np.log(points).T, 1)[0]:.2f}. ' if len(points) > 1 else ''
        said = 'met' if share[2] >= .85 else 'missed'
        print(f'\n{side} pixels: {grown}Target of {n} files with scores, at least 0.85 of the network alone: {share[2]:.2f}, {said}.\n', flush=True)
    shutil.rmtree(home)
