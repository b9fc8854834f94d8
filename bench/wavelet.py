"""Forward and backward of a three-level transform, ours against ptwt, as ratios in one run."""
import statistics, time
import ptwt, pywt, torch
from hqgnet_nb.wavelet import wavedec2

def once(f, x):
    t = time.perf_counter()
    x.grad = None; sum(c.square().sum() for c in f(x)).backward()
    return time.perf_counter() - t

def leaves(coeffs): return [coeffs[0], *[c for level in coeffs[1:] for c in level]]

if __name__ == '__main__':
    torch.manual_seed(0)
    x = torch.rand(4, 3, 128, 128, requires_grad=True)
    print('| wavelet | ours / ptwt (median of 15 pairs) | min | max |\n|---|--:|--:|--:|')
    for name in ('haar', 'db2', 'db4'):
        ours = lambda t: wavedec2(t, name, 3, 'symmetric')                                        # noqa: B023  called at once
        theirs = lambda t: leaves(ptwt.wavedec2(t, pywt.Wavelet(name), level=3, mode='symmetric'))     # noqa: B023
        for f in (ours, theirs): once(f, x)
        r = [once(ours, x)/once(theirs, x) for _ in range(15)]
        print(f'| {name} | {statistics.median(r):.2f} | {min(r):.2f} | {max(r):.2f} |')
