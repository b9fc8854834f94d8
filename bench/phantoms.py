"""Seconds for 100 phantoms of 256 px of each kind, with a pool of two processes; `--n` and `--size` for others."""
import argparse, os, time
from concurrent.futures import ProcessPoolExecutor
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(name, '1')     # two processes, one thread each

def paint(job):
    from hqgnet_nb.phantoms import phantom
    start = time.process_time(); phantom(*job)
    return time.process_time() - start

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--n', type=int, default=100); p.add_argument('--size', type=int, default=256)
    a = p.parse_args()
    from hqgnet_nb.phantoms import PAINTERS
    print(f'| kind | seconds for {a.n} of {a.size} px, 2 processes | CPU seconds an image |\n|---|--:|--:|')
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(paint, [(k, 64, s) for k in PAINTERS for s in (0, 1, 2, 3)]))                                  # imports are not timed
        for kind in PAINTERS:
            start = time.perf_counter(); cpu = list(pool.map(paint, [(kind, a.size, s) for s in range(a.n)], chunksize=5))
            print(f'| {kind} | {time.perf_counter() - start:.1f} | {sum(cpu)/a.n:.3f} |', flush=True)
