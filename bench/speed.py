"""Speed as ratios in one run, each with its target: a training step beside CycleGAN's, the network beside its convolutions, inference by each backend,
the wavelet transform beside ptwt and pytorch_wavelets, and start-up. One thread and processor time, so that another program on the machine spoils
little; medians.

python bench/speed.py [--threads N] [--size 512] [--only training,convolutions,inference,wavelet,startup] [--no-compile]

With more than one thread, time on the clock is measured; the machine should then be idle.
"""
import argparse, importlib.util, re, resource, shutil, statistics, subprocess, sys, tempfile, time
from large import by_itself, forget_peak, peak   # this and the next: its neighbours here
from wavelet import example as waves, once, others, transform

def median_times(works, repeats, clock):
    "{name: times} of functions run in turn, A B C A B C …, after a first round that does not count"
    times = {k: [] for k in works}
    for i in range(repeats + 1):
        for k, f in works.items():
            t = clock(); f(); t = clock() - t
            if i: times[k].append(t)
    return times

def ratio(times, a, b): return statistics.median(x/y for x, y in zip(times[a], times[b]))

def row(name, value, target=None, unit='x', note=''):
    met = '' if target is None else 'yes' if value <= target else 'no'
    print(f'| {name} | {value:.2f}{unit} | {"" if target is None else f"≤ {target:g}{unit}"} | {met} | {note} |', flush=True)

def taken(a, part, *names):
    "What each of these takes of memory, in words: the most beyond what was taken before, in a process of its own"
    used = lambda k: by_itself(__file__, '--memory', part, k, '--size', a.size, '--threads', a.threads)
    return f'{" and ".join(f"{used(k):.0f}" for k in names)} MiB more memory at the peak'

def steps(a):
    "One training step of HQG-Net (batch of the tiny preset) and of CycleGAN with a generator of equal widths, optimizers included"
    import torch
    from hqgnet_nb.core import torch_rng
    from hqgnet_nb.discriminator import PatchDiscriminator, d_loss
    from hqgnet_nb.generator import HQGNet
    from hqgnet_nb.learner import PRESETS
    from hqgnet_nb.losses import HQGLoss, frozen_call, n_style
    from hqgnet_nb.restore import KNOBS, corrupt
    from hqgnet_nb.rivals import CycleGAN
    p, last = PRESETS['tiny'], torch.channels_last; B = p['bs']; n = max(1, round(.25*B))        # `played` of notebook 10
    torch.manual_seed(0)
    net = HQGNet(3, p['widths'], p['guide_widths'], n_probe=n_style(3)).to(memory_format=last)
    disc, crit = PatchDiscriminator(3, p['d_widths']).to(memory_format=last), HQGLoss()
    adam = lambda *ms: torch.optim.Adam([q for m in ms for q in m.parameters()], lr=1e-4)
    go, do = adam(net), adam(disc)
    y, z = (torch.rand(k, 3, p['size'], p['size']).to(memory_format=last) for k in (n, B)); fov = torch.ones_like(z[:, :1])
    def ours(g=torch_rng(0)):
        out = net(y, z[:n], sample=g, fov=fov[:n], hq_fov=fov[:n], full=True)
        back = net(corrupt(z, fov, torch.rand(B, len(KNOBS), generator=g), g), code=net.guidance(z, fov)[0], sample=g, fov=fov, full=True)
        total, _ = crit(net, out, y, z[:n], fov[:n], fov[:n], verdicts=frozen_call(disc, out.x), restored=back, clean=torch.zeros(B, dtype=torch.bool),
                        good=z, good_fov=fov)
        go.zero_grad(); total.backward(); go.step()
        do.zero_grad(); d_loss(disc(z[:n]), disc(out.x.detach())).backward(); do.step()
    rival = CycleGAN(3, p['widths']).to(memory_format=last); g1, g2 = adam(rival.net, rival.back), adam(rival.d_hq, rival.d_lq); one = fov[:1]
    def theirs():
        parts, seen = rival.play(y[:1], one, z[:1], one, lambda what: torch_rng(0, what))
        g1.zero_grad(); sum(parts.values()).backward(); g1.step()
        g2.zero_grad(); sum(rival.judge(seen, lambda what: torch_rng(0, what)).values()).backward(); g2.step()
    return ours, theirs, B

def training(a):
    ours, theirs, B = steps(a)
    t = median_times(dict(ours=ours, theirs=theirs), 9, a.clock); most = taken(a, 'training', 'ours', 'theirs')
    row('training step per image / CycleGAN', ratio(t, 'ours', 'theirs')/B, .5,
        note=f'128 px, batches of {B} good images and 1, optimizers included; without the R1 penalty of one step in eight and the average of the weights; '
             + most)
    row('training step / CycleGAN', ratio(t, 'ours', 'theirs'), note=f'per LQ image: ours plays with {max(1, round(.25*B))} of them a step, CycleGAN with 1')

def example(a):
    "(network, image, field of view that leaves out a border) at `--size`"
    import torch
    from hqgnet_nb.generator import load_net
    torch.manual_seed(0); x = torch.rand(1, 3, a.size, a.size); fov = torch.ones_like(x[:, :1]); fov[..., :a.size//8] = 0
    return load_net('fundus-tiny')[0], x, fov

def layers(a):
    "({name: function}: the generator, its convolutions alone; their number)"
    import torch, torch.nn.functional as F
    net, x, fov = example(a); net = net.to(memory_format=torch.channels_last); seen = []
    hooks = [m.register_forward_pre_hook(lambda m, i: seen.append((m, i[0].clone()))) for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        whole = lambda: net(x, code=net.mean_code, fov=fov, full=True)
        whole(); [h.remove() for h in hooks]
        calls = [(F.pad(i, (1,)*4, mode='replicate') if m.kernel_size[0] > 1 else i, m) for m, i in seen]
    return dict(whole=whole, convolutions=lambda: [F.conv2d(i, m.weight, m.bias) for i, m in calls]), len(calls)

def convolutions(a):
    import torch
    works, n = layers(a)
    with torch.no_grad(): t = median_times(works, 9, a.clock)
    row('generator / its convolutions alone', ratio(t, 'whole', 'convolutions'), 1.67,
        note=f'PyTorch, channels last, {a.size} px, {n} convolutions; {taken(a, "convolutions", *works)}')

def backends(a):
    "{name: function that enhances} for the plain network and each backend"
    import torch
    from hqgnet_nb.export import OnnxNet, export_onnx
    from hqgnet_nb.generator import load_net
    net, x, fov = example(a); last = load_net('fundus-tiny')[0].to(memory_format=torch.channels_last)
    run = lambda m: lambda: m(x, code=net.mean_code, fov=fov, full=True)
    works = {'eager': run(net), 'channels last': run(last)}
    if all(importlib.util.find_spec(n) for n in ('onnx', 'onnxruntime')):
        engine = OnnxNet(export_onnx('fundus-tiny', tempfile.mkdtemp()), threads=a.threads)
        works['ONNX Runtime'] = lambda: engine(x, net.mean_code, 1., fov)
    return works, run, last

def inference(a):
    import torch
    works, run, last = backends(a); notes = {}
    if 'ONNX Runtime' not in works: print("| inference, ONNX Runtime | left out | | | not installed: pip install 'hqgnet_nb[export]' |")
    with torch.no_grad():
        want = works['eager']()
        if a.no_compile: print('| inference, torch.compile | left out | | | --no-compile |')
        elif not any(map(shutil.which, ('g++', 'clang++', 'c++'))): print('| inference, torch.compile | left out | | | no C++ compiler |')
        else:
            t = time.perf_counter(); f = run(torch.compile(last))
            try: f(); works['torch.compile'] = f; notes['torch.compile'] = f'after {time.perf_counter() - t:.0f} s of compiling'
            except Exception as e: print(f'| inference, torch.compile | left out | | | {type(e).__name__}: {str(e).splitlines()[0][:80]} |')
        far = {k: float((f().x - want.x).abs().max()) for k, f in works.items()}
        t = median_times(works, 7, a.clock)
    for k in list(works)[1:]:
        assert far[k] < 1e-4, f'{k} differs from the plain network by {far[k]:.1e}'
        most = taken(a, 'inference', k, 'eager') if k != 'torch.compile' else None
        picked = k == ('ONNX Runtime' if 'ONNX Runtime' in works and a.threads == 1 else 'channels last')
        row(f'inference, {k} / eager', ratio(t, k, 'eager'), .45 if picked else None,
            note='; '.join(filter(None, [
                f'{a.size} px, {1e3*statistics.median(t[k]):.0f} ms, differs by {far[k]:.0e}', most,
                notes.get(k), 'what `enhance` picks' + ' after `hqgnet export`'*(k != 'channels last') if picked else ''])))


def memory(a, part, name):
    "Prints the MiB that the first two calls of one thing take at their peak, beyond what was taken before"
    import torch
    if part == 'wavelet':
        x, f = waves(), transform(*name.split()); work = lambda: once(f, x)
    elif part == 'training': work = steps(a)[name == 'theirs']
    else: work = (layers if part == 'convolutions' else backends)(a)[0][name]
    forget_peak(); before = peak()                             # what made the example has had a peak of its own
    with torch.set_grad_enabled(part in ('training', 'wavelet')): work(); work()
    print(peak() - before)

def wavelet(a):
    x = waves(); there, why = others()
    for w in ('haar', 'db2', 'db4'):
        t = median_times({k: lambda f=transform(k, w): once(f, x) for k in ('ours', *there)}, 15, a.clock)
        for k in there:
            row(f'wavelet transform {w} / {k}', ratio(t, 'ours', k), 1,
                note=f'3 levels, symmetric, forward and backward; {taken(a, "wavelet", f"ours {w}", f"{k} {w}")}')
    for k, w in why.items(): print(f'| wavelet transform / {k} | | ≤ 1x | | {w} |', flush=True)

def startup(a):
    def child(*words):
        "Processor time of one process, seconds"
        before = resource.getrusage(resource.RUSAGE_CHILDREN); subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN); return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    def most(code):
        "Memory of one process at its peak, MiB, as it says at its end: not of one that is timed"
        tell = "import atexit, sys; atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read()))\n"
        said = re.search(r'VmHWM:\s*(\d+)', subprocess.run([sys.executable, '-c', tell + code], capture_output=True, text=True).stderr)
        return f'{int(said[1])/1024:.0f} MiB' if said else 'unknown'
    run_help = "import runpy; sys.argv[1:] = ['--help']; runpy.run_module('hqgnet_nb.cli', run_name='__main__')"
    codes = {'`hqgnet --help`': run_help, **{f'import {m}': f'import {m}' for m in ('hqgnet_nb', 'torch', 'hqgnet_nb.enhance')}}
    works = {k: (lambda w=('-m', 'hqgnet_nb.cli', '--help') if 'help' in k else ('-c', k): child(*w)) for k in codes}
    times = {k: [] for k in works}
    for i in range(6):
        for k, f in works.items():
            t = f()
            if i: times[k].append(t)
    for k in ('`hqgnet --help`', 'import hqgnet_nb'): row(k, statistics.median(times[k]), .5, ' s', f'processor time; {most(codes[k])} at the peak')
    row('import hqgnet_nb.enhance / import torch', ratio(times, 'import hqgnet_nb.enhance', 'import torch'), 1.2,
        note=' and '.join(most(codes[k]) for k in ('import hqgnet_nb.enhance', 'import torch')) + ' at the peak')

if __name__ == '__main__':
    parts = dict(training=training, convolutions=convolutions, inference=inference, wavelet=wavelet, startup=startup)
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--threads', type=int, default=1); ap.add_argument('--size', type=int, default=512)
    ap.add_argument('--only', default=','.join(parts)); ap.add_argument('--no-compile', action='store_true')
    ap.add_argument('--memory', nargs=2, help=argparse.SUPPRESS)
    a = ap.parse_args(); a.clock = time.process_time if a.threads == 1 else time.perf_counter
    import torch
    torch.set_num_threads(a.threads)
    if a.memory: memory(a, *a.memory); sys.exit()
    print(f'{a.threads} thread{"s" if a.threads > 1 else ""}, {"time on the clock" if a.threads > 1 else "processor time"}, PyTorch {torch.__version__}')
    print('\n| what | measured | target | met | |\n|---|--:|--:|---|---|')
    for name in a.only.split(','): parts[name](a)
