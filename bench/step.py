"""One training step of the tiny preset (128 px, batch 4) and its parts, as shares of the step, in one run, and the memory of a step that ends there."""
import json, statistics, sys, time
import torch
from hqgnet_nb.core import torch_rng
from hqgnet_nb.discriminator import PatchDiscriminator, d_loss
from hqgnet_nb.generator import HQGNet
from hqgnet_nb.learner import PRESETS
from hqgnet_nb.losses import HQGLoss, frozen_call, n_style
from hqgnet_nb.restore import KNOBS, corrupt
from large import by_itself, peak    # its neighbour here

class Enough(Exception):
    "The part was reached that a step shall end with"

def measure(steps, last_part=None):
    "({part: seconds of each step}, images restored in a step, LQ images in it, MiB at the peak beyond what was taken before)"
    torch.manual_seed(0)
    p = PRESETS['tiny']; last = torch.channels_last; B = p['bs']
    net = HQGNet(3, p['widths'], p['guide_widths'], n_probe=n_style(3)).to(memory_format=last)
    disc, crit = PatchDiscriminator(3, p['d_widths']).to(memory_format=last), HQGLoss()
    n = max(1, round(.25*B))                                  # as many as the game is played with, see `played` in notebook 10
    y, z = (torch.rand(k, 3, p['size'], p['size']).to(memory_format=last) for k in (n, B)); fov = torch.ones_like(z[:, :1])
    times = {}
    def lap(name, t):
        times.setdefault(name, []).append(time.perf_counter() - t)
        if name == last_part: raise Enough
        return time.perf_counter()
    def step(k):
        t0 = t = time.perf_counter(); g = torch_rng(0, k)
        out = net(y, z[:n], sample=g, fov=fov[:n], hq_fov=fov[:n], full=True); t = lap('generator on LQ images', t)
        bad = corrupt(z, fov, torch.rand(B, len(KNOBS), generator=g), g); t = lap('spoiling HQ images', t)
        code = net.guidance(z, fov)[0]; back = net(bad, code=code, sample=g, fov=fov, full=True); t = lap('generator on spoiled HQ images', t)
        verdicts = frozen_call(disc, out.x); t = lap('discriminator on the result', t)
        total, _ = crit(net, out, y, z[:n], fov[:n], fov[:n], verdicts=verdicts, restored=back, clean=torch.zeros(B, dtype=torch.bool), good=z, good_fov=fov)
        t = lap('losses', t)
        total.backward(); t = lap('backward', t)
        d_loss(disc(z[:n]), disc(out.x.detach())).backward(); t = lap("discriminator's own step", t)
        net.zero_grad(); disc.zero_grad(); lap('step', t0)
    before = peak()
    for k in range(steps):
        try: step(k)
        except Enough: net.zero_grad(); disc.zero_grad()
    return times, B, n, peak() - before

if __name__ == '__main__':
    if sys.argv[1:2] == ['--memory']: print(json.dumps(measure(2, sys.argv[2])[3])); sys.exit()
    times, B, n, _ = measure(max(3, int((sys.argv[1:] or [10])[0]))); step = statistics.median(times['step'][2:])
    print('| part | share of the step | memory at the peak of a step that ends here, MiB |\n|---|--:|--:|')
    for name, v in times.items(): print(f'| {name} | {statistics.median(v[2:])/step:.2f} | {by_itself(__file__, "--memory", name):.0f} |', flush=True)
    print(f'\n{B/step:.1f} images restored a second, {n/step:.1f} LQ images enhanced, {torch.get_num_threads()} thread(s); '
          f'medians of {len(times["step"]) - 2} steps')
