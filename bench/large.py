"""Large images: seconds of both qualities beside one plain pass over the pixels, growth with the pixels, peak memory.

python bench/large.py [--quality fast full] [--most 8192] [--weights fundus-tiny] [--threads 2]
"""
import argparse, contextlib, ctypes, json, re, statistics, subprocess, sys, time
from pathlib import Path
import numpy as np

def peak():
    "Most megabytes (MiB) of this process so far; `ru_maxrss` would begin with those of the process that started it. NaN where /proc tells nothing"
    try: return int(re.search(r'VmHWM:\s*(\d+)', open('/proc/self/status').read())[1])/1024
    except OSError: return float('nan')

def forget_peak():
    "From now on `peak` counts anew, from what is taken now; where the system has no way to do so, it goes on counting"
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)                           # what was let go of goes back to the system
        Path('/proc/self/clear_refs').write_text('5')

def by_itself(*words):
    "What a process of its own prints last, as JSON: the peak of a process never falls again, so each row has one"
    return json.loads(subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=True).stdout.splitlines()[-1])

def photo(h, w):
    "A generated photograph of any size: soft colours and grain in a round field of view, uint8"
    from hqgnet_nb.core import rng
    out = np.empty((h, w, 3), np.uint8); grain = rng(0, 'grain').integers(0, 24, (64, w + 64, 3)).astype(np.uint8)
    u = np.linspace(-1, 1, w, dtype=np.float32)
    for a in range(0, h, 64):
        v = np.linspace(-1, 1, h, dtype=np.float32)[a:a + 64, None]; r = u*u + v*v
        tone = np.stack([110 + 60*np.cos(3*u) + 0*v, 80 + 40*np.cos(5*u*v), 60 + 30*np.sin(4*v) + 0*u], -1)
        out[a:a + 64] = np.where((r < .95)[..., None], tone.astype(np.uint8) + grain[:len(v), a//64 % 64:][:, :w], 0)
    return out

def plain(img):
    "The fixed measure: 8 bits to float32, times a number, back to 8 bits, sixteen rows at a time"
    out = np.empty_like(img)
    for a in range(0, len(img), 16): out[a:a + 16] = np.rint(img[a:a + 16].astype(np.float32)*.9)
    return out

def load(a):
    import torch
    from hqgnet_nb.enhance import Enhancer
    torch.set_num_threads(a.threads); e = Enhancer.from_pretrained(a.weights, 'cpu'); e.enhance(photo(160, 160), quality='full')
    return e

def timed(f, *args, **kw):
    "(seconds on the clock, seconds of computing by all threads: less than the clock's where other programs share the machine)"
    t = time.perf_counter(), time.process_time(); f(*args, **kw)
    return time.perf_counter() - t[0], time.process_time() - t[1]

def child(a):
    "One image of a process's own: seconds, and megabytes of the whole process at its peak, with PyTorch, input and output"
    e, img = load(a), photo(*a.one); before = peak()
    s = timed(e.enhance, img, quality=a.quality[0])
    print(json.dumps(dict(seconds=s[0], computing=s[1], before=before, peak=peak())))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--quality', nargs='+', default=['fast'], choices=['fast', 'full'])
    p.add_argument('--most', type=int, default=8192, help='side of the largest square, pixels')
    p.add_argument('--weights', default='fundus-tiny')
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--one', nargs=2, type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one: child(a); sys.exit()
    e, img = load(a), photo(4000, 6000); rows = [(*timed(plain, img), *timed(e.enhance, img, quality='fast')) for _ in range(7)]
    base, _, fast, work = (statistics.median(r) for r in zip(*rows))
    best = min(r[2] for r in rows)
    print(f'24 megapixels (4000 x 6000 x 3, 8 bits), fast, {a.threads} threads, medians of 7 pairs: {fast:.2f} s (best {best:.2f} s, of computing '
          f'{work:.2f} s); {statistics.median(r[3]/r[1] for r in rows):.1f} times the computing of a plain pass, which takes {base:.2f} s. '
          f'Target, below 2 s: {"met" if fast < 2 else "missed"}.\n')
    for quality in a.quality:
        points = []; print(f'| {quality}: side | seconds | of computing | plain passes | peak of the process, MB | before, MB |\n' + '|--:'*6 + '|')
        for side in [128*2**k for k in range(7) if 128*2**k <= a.most]:
            img = photo(side, side); n = 1 if side > 1024 and quality == 'full' else 3
            s, work = map(min, zip(*(timed(e.enhance, img, quality=quality) for _ in range(n)))); base = min(timed(plain, img)[1] for _ in range(3))
            args = '--one', side, side, '--quality', quality, '--weights', a.weights, '--threads', a.threads
            m = by_itself(__file__, *args); points.append((side, work))
            print(f'| {side} | {s:.3f} | {work:.3f} | {work/base:.1f} | {m["peak"]:.0f} | {m["before"]:.0f} |', flush=True)
        x, y = np.log(points).T; large = [k for k, q in enumerate(points) if q[0] >= 1024]
        fit = lambda k: np.polyfit(2*x[k], y[k], 1)[0]              # noqa: B023  called at once
        grown = fit(large) if len(large) > 1 else float('nan'); said = lambda ok: 'met' if ok else 'missed'
        print(f'\n{quality}: seconds of computing grow with pixels to the power of {fit(range(len(x))):.2f}, from 1024 x 1024 on {grown:.2f}. '
              f'Target from there on, at most 1.05: {said(grown <= 1.05)}; peak at {side} x {side} below 2048 MB: {said(m["peak"] < 2048)}.\n')
