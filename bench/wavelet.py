"""Forward and backward of a three-level transform, ours against ptwt and pytorch_wavelets, as ratios in one run."""
import importlib, json, statistics, sys, time, types
import torch
from hqgnet_nb.wavelet import wavedec2
from large import by_itself, peak    # its neighbour here

def once(f, x):
    t = time.perf_counter()
    x.grad = None; sum(c.square().sum() for c in f(x)).backward()
    return time.perf_counter() - t

def leaves(coeffs): return [coeffs[0], *[c for level in coeffs[1:] for c in level]]

def _ptwt(name):
    import ptwt, pywt
    w = pywt.Wavelet(name); return lambda x: leaves(ptwt.wavedec2(x, w, level=3, mode='symmetric'))

def _pytorch_wavelets(name):
    try: importlib.import_module('pkg_resources')
    except ImportError: sys.modules['pkg_resources'] = types.SimpleNamespace(resource_stream=None)   # gone from setuptools; its import alone is wanted here
    from pytorch_wavelets import DWTForward
    f = DWTForward(J=3, wave=name, mode='symmetric')
    def run(x): low, high = f(x); return [low, *high]
    return run

OTHERS = dict(ptwt=_ptwt, pytorch_wavelets=_pytorch_wavelets)         # {package: a function wavelet -> (x -> coefficients)}

def others():
    "(the part of `OTHERS` that works here, {package: why another does not})"
    why = {}
    for k, make in OTHERS.items():
        try: make('haar')(torch.zeros(1, 1, 16, 16))
        except ModuleNotFoundError as e: why[k] = f'not installed: pip install {k}' if e.name == k else f'needs {e.name}'
        except Exception as e: why[k] = f'cannot be used here ({type(e).__name__}: {e})'
    return {k: make for k, make in OTHERS.items() if k not in why}, why

def example(): torch.manual_seed(0); return torch.rand(4, 3, 128, 128, requires_grad=True)

def transform(package, name):
    "A function x -> coefficients of three levels: ours, or of a package of `OTHERS`"
    return (lambda t: wavedec2(t, name, 3, 'symmetric')) if package == 'ours' else OTHERS[package](name)

def memory(package, name):
    "Prints the MiB that two passes of a transform, forward and backward, take at their peak beyond what was taken before"
    x, f = example(), transform(package, name); before = peak()
    once(f, x); once(f, x); print(json.dumps(peak() - before))

if __name__ == '__main__':
    if sys.argv[1:2] == ['--memory']: memory(*sys.argv[2:]); sys.exit()
    x = example(); there, why = others(); used = lambda *what: by_itself(__file__, '--memory', *what)
    print('| wavelet, beside | ours / theirs (median of 15 pairs) | min | max | memory at the peak, ours, MiB | theirs, MiB |\n|---|--:|--:|--:|--:|--:|')
    for k, make in there.items():
        for name in ('haar', 'db2', 'db4'):
            ours, theirs = transform('ours', name), make(name)
            for f in (ours, theirs): once(f, x)
            r = [once(ours, x)/once(theirs, x) for _ in range(15)]
            print(f'| {name}, {k} | {statistics.median(r):.2f} | {min(r):.2f} | {max(r):.2f} | {used("ours", name):.0f} | {used(k, name):.0f} |')
    for k, w in why.items(): print(f'| {k} | {w} | | | | |')
