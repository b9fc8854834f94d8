"""How long a visitor of the demo waits, in a real browser: python bench/demo.py --moves 20

Opens the app with a generated eye of 512 pixels and moves the slider: while dragging (a preview of 256 pixels) and on release (512 pixels, with
numbers), with the average guide and no map, and with a guide of one's own and each map, which comes with the picture at rest. A row gives the median and the
slowest, from the move to the painted picture, what of it the kernel took, and what of that the network; the first line says how many threads it has.
Needs Chromium and the extra `dev`."""
import argparse, statistics, sys, tempfile
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tests'))
import torch
from conftest import chromium
from hqgnet_nb.app import serving
from hqgnet_nb.core import to_uint, write_image
from hqgnet_nb.degrade import degrade, sample_params
from hqgnet_nb.phantoms import phantom
from hqgnet_nb.widgets import OVERLAYS

MOVE = """([e, value, kind]) => new Promise(done => {
  const dial = [...e.querySelectorAll('input[type=range]')].find(i => i.max === '1'), t = performance.now(), before = +e.dataset.drawn;
  dial.value = value; dial.dispatchEvent(new Event(kind));
  const look = () => +e.dataset.drawn > before ? done([performance.now() - t, +e.dataset.ms, +e.dataset.network]) : requestAnimationFrame(look); look(); })"""

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--moves', type=int, default=20); p.add_argument('--model', default='fundus-tiny'); a = p.parse_args()
    try: from playwright.sync_api import sync_playwright; browser = chromium()
    except ImportError: browser = None
    if browser is None: print('demo: no Chromium or no playwright here; nothing measured'); sys.exit(0)
    with tempfile.TemporaryDirectory() as d:
        eye = phantom('fundus', 512, 41); write_image(Path(d)/'bad/eye.png', to_uint(degrade(eye['image'], sample_params('fundus', 41), eye['fov'])))
        write_image(Path(d)/'good/1.png', to_uint(phantom('fundus', 256, 7100)['image']))
        with serving(a.model, images=Path(d)/'bad', guides=Path(d)/'good') as (address, _), sync_playwright() as play:
            page = play.chromium.launch(executable_path=browser, args=['--no-sandbox']).new_page(); page.goto(address)
            demo = page.locator('.hqgnet[aria-label*=strength]'); demo.wait_for(timeout=90_000); page.wait_for_timeout(8000); e = demo.element_handle()
            print(f'{torch.get_num_threads()} threads, PyTorch {torch.__version__}\n')
            print('| move | guide | map | median, ms | slowest, ms | in the kernel, ms | of that the network | target, ms |\n|---|---|---|--:|--:|--:|--:|---|')
            for guide, over in (('average', 'none'), *(('own', m) for m in OVERLAYS)):
                if guide == 'own': demo.locator('.guides label').last.click()
                demo.get_by_label('Over the picture').select_option(over); page.wait_for_timeout(4000)
                for kind, words, goal in (('input', 'dragging, 256 pixels', 150), ('change', 'released, 512 pixels', 800)):
                    if kind == 'input' and over != 'none': continue                # no map while it is dragged
                    took = []
                    for k in range(a.moves): took.append(page.evaluate(MOVE, [e, round(.2 + .6*k/a.moves, 2), kind])); page.wait_for_timeout(100)
                    total, kernel, network = ([t[i] for t in took] for i in range(3))
                    share = statistics.median(n/max(k, 1) for n, k in zip(network, kernel))
                    half = statistics.median; met = 'met' if half(total) < goal else 'missed'; line = f'| {words} | {guide} | {over} | {half(total):.0f} '
                    print(line + f'| {max(total):.0f} | {half(kernel):.0f} | {100*share:.0f} % | {goal}: {met} |', flush=True)

if __name__ == '__main__': main()
