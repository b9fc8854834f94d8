"""A folder enhanced, beside the network alone on the same images in memory, as ratios in one run: `python bench/batch.py [N] [SIDE …]`."""
import shutil, statistics, sys, tempfile, time
from pathlib import Path
from hqgnet_nb.batch import enhance_folder
from hqgnet_nb.core import list_images, read_image, to_uint, write_image
from hqgnet_nb.degrade import degrade, sample_params
from hqgnet_nb.enhance import Enhancer
from hqgnet_nb.phantoms import phantom
from large import peak              # its neighbour here

def seconds(f):
    t = time.perf_counter(); f()
    return time.perf_counter() - t

def naive(en, src, out):
    "One thing at a time"
    for f in list_images(src): write_image(out/f'{f.stem}.png', en.enhance(read_image(f)))

if __name__ == '__main__':
    n, sides = int((sys.argv[1:] or [100])[0]), [int(s) for s in sys.argv[2:]] or [128, 256, 512]
    en, home, runs = Enhancer.from_pretrained('fundus-tiny'), Path(tempfile.mkdtemp()), 3
    print(f'{n} images a folder, median of {runs} runs: throughput as a share of the network alone (1 = no time lost)\n')
    print('| side, pixels | network alone, images/s | one thing at a time | batch, no sidecars | batch, sidecars and scores | peak memory, MiB '
          '| target, 0.85 with scores |')
    print('|--:|--:|--:|--:|--:|--:|---|')
    for side in sides:
        few = [to_uint(degrade((p := phantom('fundus', side, seed=k))['image'], sample_params('fundus', k), p['fov']).clip(0, 1)) for k in range(4)]
        for k in range(n): write_image(home/f'in{side}/{k:05d}.png', few[k % 4])
        src, rows = home/f'in{side}', []
        for x in few: en.enhance(x)
        for r in range(runs):
            alone = seconds(lambda: [en.enhance(few[k % 4]) for k in range(n)])                              # noqa: B023  called at once
            ways = [lambda o: naive(en, src, o), lambda o: enhance_folder(en, src, o, sidecar=False), lambda o: enhance_folder(en, src, o)]     # noqa: B023
            rows.append((alone, *(seconds(lambda: f(home/f'out{side}_{r}_{k}')) for k, f in enumerate(ways))))        # noqa: B023
        alone = statistics.median(r[0] for r in rows); share = [statistics.median(r[0]/r[k] for r in rows) for k in (1, 2, 3)]
        most = peak()
        said = 'met' if share[2] >= .85 else 'missed'
        print(f'| {side} | {n/alone:.1f} | {share[0]:.2f} | {share[1]:.2f} | {share[2]:.2f} | {most:.0f} | {said} |', flush=True)
    shutil.rmtree(home)
