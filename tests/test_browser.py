"""The demos in a real browser: in JupyterLab, in the app, and as a page without a kernel. Needs Chromium and the extra `dev`; skips, saying so, without"""
import base64, contextlib, functools, hashlib, http.server, io, itertools, json, os, re, shutil, socket, subprocess, sys, threading, time, urllib.parse
from pathlib import Path
import numpy as np
import pytest, tifffile
from PIL import Image
from conftest import NO_CHROMIUM, chromium, noted

sync = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
for package in ('anywidget', 'voila', 'jupyterlab'): pytest.importorskip(package, reason=f'{package} is not installed')
if chromium() is None: pytest.skip(NO_CHROMIUM, allow_module_level=True)

from hqgnet_nb import __version__                                         # noqa: E402
from hqgnet_nb.app import doorway, free_port, serving                     # noqa: E402
from hqgnet_nb.batch import label                                         # noqa: E402
from hqgnet_nb.core import read_image, resize, to_float, to_uint, write_image                     # noqa: E402
from hqgnet_nb.degrade import degrade, sample_params                      # noqa: E402
from hqgnet_nb.enhance import Enhancer                                    # noqa: E402
from hqgnet_nb.phantoms import phantom                                    # noqa: E402
from hqgnet_nb import widgets                                             # noqa: E402
from notebooks import exercises                                            # noqa: E402
from hqgnet_nb.widgets import Strength, sample_guides, sample_images, write_still      # noqa: E402

PATIENCE = int(os.environ.get('HQGNET_PATIENCE', 300_000))               # ms until something has not come: a slow machine is no defect
SHOTS = os.environ.get('HQGNET_SHOTS')                                    # a folder that gets a picture of each page, to look at

@pytest.fixture(scope='module')
def browser():
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium(), args=['--no-sandbox', '--disable-gpu']); yield b; b.close()

@pytest.fixture
def page(browser):
    "A page that keeps what it logs and whom it asks; both are looked at in the end"
    context = browser.new_context(viewport=dict(width=1280, height=900), accept_downloads=True); context.set_default_timeout(PATIENCE)
    page = context.new_page(); page.logs, page.asked = [], set()
    page.on('console', lambda m: page.logs.append((m.text, m.location['url'])) if m.type == 'error' else None)
    page.on('pageerror', lambda e: page.logs.append((str(e), '')))
    page.on('request', lambda r: page.asked.add(r.url.split('/')[2] if r.url.startswith('http') else r.url.split(':')[0]))
    yield page
    context.close()

ABSENT = 'Failed to load resource: the server responded with a status of 404 ('            # then words, each server's own

def clean(page, *absent):
    "No error in the console but a 404 of the paths in `absent`, and no request left this machine"
    logs = [(text, url) for text, url in page.logs if not text.startswith(ABSENT) or urllib.parse.urlsplit(url).path not in absent]
    assert not logs, logs
    assert all(a.split(':')[0] in ('127.0.0.1', 'localhost', 'data', 'blob', 'file') for a in page.asked), page.asked

def shoot(what, name):
    if SHOTS: Path(SHOTS).mkdir(parents=True, exist_ok=True); what.screenshot(path=str(Path(SHOTS)/f'{name}.png'))

def pixels(demo, k=0):
    "The picture on the k-th canvas, as the visitor sees it"
    url = demo.locator('.screen canvas').nth(k).evaluate('c => c.toDataURL("image/png")')
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(',')[1]))).convert('RGB')).astype(int)

def settled(demo, act):
    "Act, and wait until a picture at rest has been drawn after it"
    before = int(demo.get_attribute('data-drawn') or 0); act(); page = demo.page; t = time.monotonic()
    while int(demo.get_attribute('data-drawn') or 0) <= before or demo.get_attribute('data-quick') == 'true':
        assert time.monotonic() - t < PATIENCE/1000, 'no picture came'
        page.wait_for_timeout(50)
    page.wait_for_timeout(150)
    return pixels(demo)

def strength_of(demo): return float(demo.get_attribute('data-strength'))

def use(demo, page):
    "What every visitor does: keys, mouse, guide, map"
    demo.wait_for(); page.wait_for_function('e => e.dataset.quick === "false"', arg=demo.element_handle())
    dial, key = demo.get_by_label('Strength'), page.keyboard.press; first = pixels(demo); assert first.std() > 5
    dial.focus(); end = settled(demo, lambda: key('Home')); assert strength_of(demo) == 0 and (end != first).any(), 'a key moves the strength'
    key('ArrowRight'); page.wait_for_timeout(200); assert float(dial.input_value()) > 0, 'an arrow too: JupyterLab has uses of its own for arrows'
    for _ in range(4): key('PageUp')
    page.wait_for_function('e => +e.dataset.strength > .2 && e.dataset.quick === "false"', arg=demo.element_handle())
    page.wait_for_timeout(150); half = pixels(demo); assert (half != end).any()
    box = dial.bounding_box(); full = settled(demo, lambda: page.mouse.click(box['x'] + box['width'] - 3, box['y'] + box['height']/2))
    assert strength_of(demo) > .9 and (full != half).any(), 'the mouse moves it too'
    guide = demo.get_by_role('radio'); guide.first.focus(); other = settled(demo, lambda: key('ArrowRight'))
    assert guide.nth(1).is_checked() and (other != full).any(), 'another guide by key, another picture'
    over = demo.get_by_label('Over the picture'); over.focus(); mapped = settled(demo, lambda: key('ArrowDown'))
    assert over.input_value() == 'difference' and (mapped != other).any() and demo.locator('.key span').count() == 2, 'a map over the picture, and its key'
    demo.get_by_label('Split: share').focus(); key('End'); page.wait_for_timeout(200); before = pixels(demo)
    key('Home'); page.wait_for_timeout(200); after = pixels(demo); assert (before != after).any(), 'the split shows one or the other'
    drag_split(demo, page, before, after)
    assert demo.locator('dd').count() >= 3; told(demo)

def by_keys(page, demo, spoil):
    "To a saved picture, to a file of one's own and to a spoiled image, by Tab and the keys of each control alone"
    key = page.keyboard.press
    def go(what):
        e = what.element_handle()
        for _ in range(200):
            key('Tab')
            if e.evaluate('e => e === document.activeElement'): return
        raise AssertionError(f'Tab never comes to {e.evaluate("e => e.outerHTML")[:200]}')
    first = pixels(demo); go(demo.get_by_label('Strength'))
    weak = settled(demo, lambda: [key('PageDown') for _ in range(5)]); assert (weak != first).any(), 'the strength'
    go(demo.get_by_role('radio', checked=True)); guided = settled(demo, lambda: key('ArrowRight')); assert (guided != weak).any(), 'the guide'
    go(demo.get_by_label('Over the picture')); mapped = settled(demo, lambda: key('ArrowDown')); assert (mapped != guided).any(), 'a map'
    go(demo.get_by_label('Split: share')); key('End'); page.wait_for_timeout(200); whole = pixels(demo); assert (whole != mapped).any(), 'the split'
    got = []; page.on('download', lambda d: got.append(d.suggested_filename)); go(demo.get_by_role('button', name='Save')); key('Enter'); t = time.monotonic()
    while len(got) < 2: assert time.monotonic() - t < PATIENCE/1000, got; page.wait_for_timeout(50)
    go(demo.locator('input[type=file]').first)
    with page.expect_file_chooser() as asked: key('Space')
    assert asked.value.element.evaluate('e => e.type') == 'file', 'a file of one\'s own'
    go(spoil.locator('input[type=checkbox]').first); drawn = lambda: int(spoil.get_attribute('data-drawn')); n = drawn(); key('Space')
    page.wait_for_function('([e, n]) => +e.dataset.drawn > n', arg=[spoil.element_handle(), n]); key('Space')
    part = spoil.locator('details').first; is_open = lambda: part.evaluate('e => e.open'); was = is_open()
    go(spoil.locator('summary').first); key('Enter'); assert is_open() != was, 'opened or closed'
    if was: key('Enter')
    go(spoil.locator('input[type=range]').first); n = drawn(); key('End')
    page.wait_for_function('([e, n]) => +e.dataset.drawn > n', arg=[spoil.element_handle(), n])

def drag_split(demo, page, before, after):
    "The split goes where the mouse goes, for as long as it is held"
    canvas, w = demo.locator('.screen canvas').first, before.shape[1]; canvas.scroll_into_view_if_needed(); box = canvas.bounding_box()
    at = lambda share: (box['x'] + share*box['width'], box['y'] + box['height']/2)
    def parts(share):
        page.wait_for_timeout(200); now, x = pixels(demo), round(share*w)
        assert (now[:, :x - 3] == before[:, :x - 3]).all() and (now[:, x + 3:] == after[:, x + 3:]).all(), ('before, split, after', share)
    assert (before != after)[:, w//4 + 3:3*w//4 - 3].any(), 'a difference to be seen'
    page.mouse.move(*at(.25)); page.mouse.down(); parts(.25); page.mouse.move(*at(.75), steps=5); parts(.75)
    page.mouse.up(); page.mouse.move(*at(.5)); parts(.75)

def drag_dial(demo, page):
    "While the dial is held, quick pictures come, without a map and with numbers marked as old; when it is let go, one with its numbers and map"
    dial, busy, e = demo.get_by_label('Strength'), demo.locator('dl[aria-busy=true], .key[aria-busy=true]'), demo.element_handle()
    assert demo.locator('.key span').count(), 'with a map'
    dial.focus(); settled(demo, lambda: page.keyboard.press('Home')); assert busy.count() == 0
    dial.scroll_into_view_if_needed(); box = dial.bounding_box(); y = box['y'] + box['height']/2
    page.mouse.move(box['x'] + 8, y); page.mouse.down(); page.mouse.move(box['x'] + .7*box['width'], y, steps=6)
    page.wait_for_function('e => +e.dataset.strength > .6 && e.dataset.quick === "true"', arg=e); page.wait_for_timeout(150)
    assert busy.count() == 2; held = pixels(demo)
    rest = settled(demo, page.mouse.up); assert busy.count() == 0 and strength_of(demo) == float(dial.input_value()) > .6
    alone = settled(demo, lambda: demo.get_by_label('Over the picture').select_option('none')); assert (rest != alone).any(), 'a map over the picture'
    assert np.abs(held - alone).mean() < np.abs(held - rest).mean(), 'and none while it was held'
    settled(demo, lambda: demo.get_by_label('Over the picture').select_option('difference'))

LETTERS = 'label, legend, dd, dt, figcaption, output, .key, .corner, .words, button:enabled, select, summary'
READS = """es => es.filter(e => e.innerText.trim() && e.offsetParent && !e.closest('[aria-busy=true]')).map(e => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number), one = v => v <= 10 ? v/3295 : ((v/255 + .055)/1.055)**2.4;
  const light = c => .2126*one(c[0]) + .7152*one(c[1]) + .0722*one(c[2]);
  let back = [255, 255, 255];
  for (let p = e; p; p = p.parentElement) { const c = rgb(getComputedStyle(p).backgroundColor); if (c.length < 4 || c[3] > .5) { back = c; break; } }
  const s = getComputedStyle(e), a = light(rgb(s.color)), b = light(back);
  return [parseFloat(s.fontSize), (Math.max(a, b) + .05)/(Math.min(a, b) + .05), e.innerText.slice(0, 40)]; })"""      # pixels; contrast as WCAG has it

def told(demo):
    "All that can be used or seen has a name for those who hear it, and can be reached by Tab"
    named = 'e => !!(e.labels && e.labels.length || e.getAttribute("aria-label") || e.tagName === "BUTTON" && e.innerText.trim())'
    for e in demo.locator('input, select, button, canvas').all():
        assert e.evaluate(named), e.evaluate('e => e.outerHTML')
        assert e.evaluate('e => e.tagName === "CANVAS" || e.tabIndex >= 0'), e.evaluate('e => e.outerHTML')
    for e in demo.locator('input[type=range]').all(): assert re.match(r'-?\d', e.get_attribute('aria-valuetext') or ''), e.evaluate('e => e.outerHTML')

def upload(demo, page, tmp):
    "A good file, and bad ones: words, and no traceback"
    p = phantom('fundus', 300, 99); write_image(tmp/'mine.png', to_uint(degrade(p['image'], sample_params('fundus', 99), p['fov'])))
    write_image(tmp/'good.png', to_uint(phantom('fundus', 150, 5)['image']))
    (tmp/'bad.png').write_bytes(b'no image at all'); (tmp/'huge.png').write_bytes(bytes(21_000_000))
    Image.new('L', (8000, 8000)).save(tmp/'wide.png'); five = np.zeros((40, 50, 5), np.uint8)         # small files, large or strange images
    for name, a in (('five.tif', five), ('two.tif', five[..., :2])): tifffile.imwrite(tmp/name, a, photometric='minisblack', planarconfig='contig')
    tifffile.imwrite(tmp/'frames.tif', np.moveaxis(five, -1, 0), photometric='minisblack')
    wrong = {'bad.png': 'cannot be read', 'huge.png': 'at most', 'wide.png': 'million pixels', 'five.tif': '5 channels', 'two.tif': '2 channels',
             'frames.tif': '5 frames'}
    chooser, words = demo.locator('input[type=file]'), demo.locator('.words')
    mine = settled(demo, lambda: chooser.first.set_input_files(tmp/'mine.png')); assert mine.shape[:2] == (300, 300) and '300 x 300' in words.inner_text()
    n, shown = demo.get_by_role('radio').count(), None
    for (name, word), what in itertools.product(wrong.items(), (chooser.first, chooser.nth(1))):        # as the image, and as a guide
        what.set_input_files(tmp/name)
        loud = demo.get_by_role('alert').element_handle()
        page.wait_for_function('([e, n, w]) => e.textContent.includes(n) && e.textContent.includes(w)', arg=[loud, name, word])
        assert 'Traceback' not in page.content() and str(tmp) not in words.inner_text() and 'shape' not in words.inner_text()
        shown = pixels(demo) if shown is None else shown                     # one answer after another: by the first error the picture is complete
    assert (pixels(demo) == shown).all() and demo.get_by_role('radio').count() == n, 'what cannot be shown changes nothing'
    settled(demo, lambda: chooser.nth(1).set_input_files(tmp/'good.png'))
    assert demo.get_by_role('radio').count() == n + 1, 'a guide of one\'s own'

def save(demo, page, tmp):
    "An image larger than the screen is saved as the library enhances it, in its size and depth, and its settings beside it"
    big = to_uint(resize(to_float(read_image(tmp/'mine.png')), (700, 800)), np.uint16); write_image(tmp/'big.png', big)
    small = settled(demo, lambda: demo.locator('input[type=file]').first.set_input_files(tmp/'big.png')); assert small.shape[:2] == (448, 512)
    s, got, t = strength_of(demo), [], time.monotonic(); assert 0 < s < 1; name = f'big_strength_{round(100*s):03d}'
    page.on('download', lambda d: got.append(d)); demo.get_by_role('button', name='Save').focus(); page.keyboard.press('Enter')
    while len(got) < 2: assert time.monotonic() - t < PATIENCE/1000, [d.suggested_filename for d in got]; page.wait_for_timeout(50)
    assert {d.suggested_filename for d in got} == {f'{name}.png', f'{name}.json'}                 # in whichever order
    for d in got: d.save_as(tmp/d.suggested_filename)
    settings, saved = json.loads((tmp/f'{name}.json').read_text(encoding='utf-8')), read_image(tmp/f'{name}.png')
    e, sha = Enhancer.from_pretrained('fundus-tiny', 'cpu'), lambda a: hashlib.sha256(a.tobytes()).hexdigest()
    want = dict(image='big.png', strength=s, guide=label('good.png', True), weights='fundus-tiny', size=[700, 800], depth=16, image_sha256=sha(big),
                guide_sha256=sha(read_image(tmp/'good.png')), weights_sha256=e.config['sha256'], program=f'hqgnet_nb {__version__}')
    assert {k: settings[k] for k in want} == want
    x = e.enhance(big, s, e.guide_code(read_image(tmp/'good.png')))
    assert saved.shape == big.shape == (700, 800, 3) and saved.dtype == big.dtype == np.uint16 and np.abs(x.astype(int) - big).mean() > 300
    assert np.abs(saved.astype(int) - x).max() <= 2, 'but for rounding'

def linked(compare, page):
    "One key, wheel or drag, and all pictures show another part, the same of each"
    page.wait_for_function('e => e.dataset.zoom', arg=compare.element_handle())
    compare.locator('.tiles').focus(); page.wait_for_timeout(500); n = compare.locator('.screen canvas').count(); assert n >= 4
    screens, key = compare.locator('.screen'), page.keyboard.press; zoom = lambda: float(compare.get_attribute('data-zoom'))
    def moved(act, how):
        was = [pixels(compare, k) for k in range(n)]; act(); page.wait_for_timeout(300); now = [pixels(compare, k) for k in range(n)]
        assert all((a != b).any() for a, b in zip(was, now)), how
        return now
    whole = [pixels(compare, k) for k in range(n)]
    moved(lambda: key('+'), 'a key enlarges'); assert zoom() > 1
    screens.nth(1).scroll_into_view_if_needed(); box = screens.nth(1).bounding_box(); x, y = box['x'] + box['width']/2, box['y'] + box['height']/2
    page.mouse.move(x, y); moved(lambda: [page.mouse.wheel(0, -100) for _ in range(6)], 'the wheel over one picture enlarges all'); assert zoom() > 2
    moved(lambda: key('ArrowLeft'), 'an arrow moves')
    def drag(): page.mouse.down(); page.mouse.move(x + box['width']/4, y + box['height']/5, steps=3); page.mouse.up()
    part = moved(drag, 'a drag moves')
    h, w = whole[0].shape[:2]; best = []
    for a, b in zip(whole, part):                                    # where in the whole the part lies, for each picture
        small = np.asarray(Image.fromarray(b.astype(np.uint8)).resize((round(w/zoom()), round(h/zoom())), Image.BOX)).mean(-1)
        views = np.lib.stride_tricks.sliding_window_view(a.mean(-1), small.shape)[::2, ::2]; d = ((views - small)**2).mean((2, 3))
        best.append(np.unravel_index(d.argmin(), d.shape))
    assert np.ptp(best, axis=0).max() <= 2, ('the same part of each', best)
    key('0'); page.wait_for_timeout(300); assert zoom() == 1 and all((pixels(compare, k) == p).all() for k, p in enumerate(whole)), 'zero shows all'
    zooms = compare.get_by_role('slider', name='Zoom'); zooms.focus(); moved(lambda: key('End'), 'the slider too'); assert zoom() == 16
    heard = lambda: zooms.get_attribute('aria-valuetext'); assert heard() == '16 ×', 'a factor, and not its logarithm'
    zooms.press('Home'); assert heard() == '1 ×'; compare.locator('.tiles').press('+')
    assert heard() == '1.3 ×' == compare.locator('output').inner_text(); zooms.press('Home')

def spoiled(spoil, page):
    "A factor more or less is another picture; a slider says its value"
    e = spoil.element_handle(); page.wait_for_function('e => +e.dataset.drawn', arg=e)
    n = int(spoil.get_attribute('data-drawn')); spoil.get_by_role('checkbox').first.click()
    page.wait_for_function('([e, n]) => +e.dataset.drawn > n', arg=[e, n])
    spoil.locator('summary').first.click(); dial, value = spoil.locator('input[type=range]').first, spoil.locator('output').first
    was = value.inner_text(); dial.focus(); page.keyboard.press('End')
    assert value.inner_text() != was and float(value.inner_text()) == float(f'{float(dial.input_value()):.3g}'), 'a slider says its value'
    assert dial.get_attribute('aria-valuetext') == value.inner_text()

def test_app(page, tmp_path):
    for k in range(2): write_image(tmp_path/f'guides/{k}.png', to_uint(phantom('fundus', 120, 7100 + k)['image']))
    (tmp_path/'guides/0broken.png').write_bytes(b'no image')
    with serving(port=18870, guides=tmp_path/'guides') as (address, _), doorway(address) as door:
        assert 'token' not in door, 'a command line can be read by others'
        page.goto(door); page.wait_for_url(f'{address.split("?")[0]}**')
        demo = page.locator('.hqgnet[aria-label*=strength]')      # loaded when the kernel has run it all
        demo.wait_for(); page.wait_for_function('e => e.dataset.quick === "false"', arg=demo.element_handle())
        left_out = page.get_by_text('1 guide left out: 0broken.png')
        assert left_out.count() == 1 and str(tmp_path) not in left_out.inner_text(), 'a bad guide does not end the page'
        assert page.get_by_text('generated (fundus); other kinds: hqgnet app --kind cornea|endoscopy').count() == 1
        compare, spoil = (page.locator(f'.hqgnet[aria-label*={what}]') for what in ('compare', 'degrade'))
        settled(demo, lambda: demo.get_by_label('Over the picture').select_option('structure')); shoot(demo, 'strength')
        assert demo.locator('.key', has_text='(before ').count() and demo.locator('dt', has_text='invented structure (before ').count() == 1
        settled(demo, lambda: demo.get_by_label('Over the picture').select_option('none')); use(demo, page); drag_dial(demo, page)
        upload(demo, page, tmp_path); save(demo, page, tmp_path); shoot(demo, 'app')
        linked(compare, page); spoiled(spoil, page)
        for _ in range(3): compare.locator('.tiles').press('+')
        page.evaluate('document.activeElement.blur()'); page.wait_for_timeout(300); shoot(compare, 'compare'); shoot(spoil, 'degrade')
        for d in (compare, spoil): told(d)
        by_keys(page, demo, spoil)
        for width, height, least in ((1920, 1080, 17), (1024, 768, 14), (800, 900, 14), (360, 900, 14)):       # the first two: projectors
            page.set_viewport_size(dict(width=width, height=height)); page.wait_for_timeout(300); demo.scroll_into_view_if_needed(); shoot(page, f'app_{width}')
            for d in (demo, compare, spoil): box = d.bounding_box(); assert box['x'] >= 0 and box['x'] + box['width'] <= width, (width, box, 'too wide')
            for d in (demo, compare, spoil):
                for size, contrast, text in d.locator(LETTERS).evaluate_all(READS):
                    assert size >= least and contrast >= 4.5, (width, text, size, contrast)
        clean(page)

def test_the_app_wants_its_token(page):
    with serving(port=18890) as (address, _):
        answer = page.goto(address.split('?')[0]); page.wait_for_load_state('networkidle')
        assert answer.status == 403 or 'login' in page.url, (answer.status, page.url)
        assert page.locator('.hqgnet').count() == 0 and page.locator('input[type=password]').count(), 'it asks for the token'

@contextlib.contextmanager
def lab(folder):
    "JupyterLab on a folder, without a token: it lives for a test"
    port = free_port(18900); root = str(Path(__file__).resolve().parent.parent)
    own = dict(JUPYTER_CONFIG_DIR='config', JUPYTER_DATA_DIR='data', IPYTHONDIR='ipython')
    side_by_side = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))                # more threads than cores wait for each other
    env = {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1)//side_by_side))} | os.environ | {'PYTHONPATH': root} | {k: str(folder/v) for k, v in own.items()}
    cmd = [sys.executable, '-m', 'jupyterlab', f'--port={port}', '--ip=127.0.0.1', '--allow-root', f'--ServerApp.root_dir={folder/"work"}',
           '--ServerApp.open_browser=False', '--IdentityProvider.token=', '--LabApp.news_url=None',
           '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate', '--LabApp.expose_app_in_browser=True']
    p = subprocess.Popen(cmd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.closing(socket.socket()) as s:
                if not s.connect_ex(('127.0.0.1', port)): break
            time.sleep(.1)
        yield f'http://127.0.0.1:{port}'
    finally: p.terminate(); p.wait(20)

@contextlib.contextmanager
def run_in_lab(page, folder, source):
    "A notebook of one cell, opened in JupyterLab and run"
    (folder/'work').mkdir()
    cell = dict(cell_type='code', id='demo', execution_count=None, metadata={}, outputs=[], source=source)
    meta = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    (folder/'work/demo.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=meta, nbformat=4, nbformat_minor=5)))
    with lab(folder) as address:
        page.goto(f'{address}/doc/tree/demo.ipynb'); page.locator('.jp-CodeCell .cm-content').first.click()
        page.wait_for_timeout(1500); page.keyboard.press('Shift+Enter')
        if (ask := page.get_by_role('button', name='No')).count(): ask.first.click()      # news, no
        yield

STRESS = os.environ.get('HQGNET_STRESS')                                  # `make stress`: the whole course, not a part of it
ROOT = Path(__file__).resolve().parent.parent
COURSE = [p.stem for p in sorted((ROOT/'nbs').glob('*.ipynb'))] if STRESS else ['06_varnorm']
STATE = """() => jupyterapp.shell.currentWidget.content.model && [...jupyterapp.shell.currentWidget.content.model.cells].filter(c => c.type === 'code').map(c =>
  ({id: c.id, n: c.executionCount, source: c.sharedModel.source, outputs: c.outputs.toJSON()}))"""

GO = """async i => { const n = jupyterapp.shell.currentWidget.content; n.mode = 'command'; n.deselectAll(); n.activeCellIndex = i;
  await n.scrollToItem(i); n.activate(); n.node.focus(); await new Promise(done => setTimeout(done, 300)); }"""             # as a reader scrolls to a cell

def ran(page, ids, since, seconds=1800):
    "Wait until the cells with these ids have been run after the prompt `since`, each without an error; the code cells as the page holds them"
    for _ in range(2*seconds):
        cells = {c['id']: c for c in page.evaluate(STATE) or ()}
        for c in cells.values():
            assert not (bad := [f"{o['ename']}: {o['evalue']}" for o in c['outputs'] if o['output_type'] == 'error']), (c['source'], bad)
        if cells and all((cells[i]['n'] or 0) > since for i in ids): return cells
        page.wait_for_timeout(500)
    raise AssertionError(f'not run within {seconds} s: {[cells[i]["source"][:80] for i in ids if (cells[i]["n"] or 0) <= since]}')

@pytest.fixture(scope='module')
def course(tmp_path_factory):
    "A copy of the course, without the outputs that it comes with, in a JupyterLab that lives for all of its tests: (its address, the copy)"
    home = tmp_path_factory.mktemp('course')
    leave = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for d in ('nbs', 'hqgnet_nb', 'data', 'docs/gallery'): shutil.copytree(ROOT/d, home/'work'/d, ignore=leave)
    for f in ('settings.ini', 'pyproject.toml'): shutil.copy(ROOT/f, home/'work')
    for path in (home/'work/nbs').glob('*.ipynb'):
        nb = json.loads(path.read_text(encoding='utf-8'))
        for c in nb['cells']: c.update(dict(outputs=[], execution_count=None) if c['cell_type'] == 'code' else {})
        path.write_text(json.dumps(nb), encoding='utf-8')
    with lab(home) as address: yield address, home/'work'

@pytest.fixture(scope='module')
def times():
    "Seconds of each notebook of the course, and how many of its exercises were answered; said when all have run"
    seconds, answered = {}, {}; yield seconds, answered; n = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
    who = f', one of {n} readers side by side'*(n > 1)
    noted(f'Course in JupyterLab, Run All{who}: {len(seconds)} notebooks in {sum(seconds.values())/60:.1f} minutes, {sum(answered.values())} exercises '
          'answered and found right; the longest: ' + ', '.join(f'{n} {seconds[n]:.0f} s' for n in sorted(seconds, key=seconds.get)[:-7:-1]))

def results(cell): return '\n'.join(''.join(o.get('text', '')) + ''.join(o.get('data', {}).get('text/plain', '')) for o in cell['outputs']).strip()

@pytest.mark.parametrize('name', COURSE)
def test_a_notebook_of_the_course_in_jupyterlab(name, page, course, times):
    "As a learner: open it, Run All, go to each exercise, write the answer above the line that checks it, run the cell"
    address, work = course; path = work/f'nbs/{name}.ipynb'; cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    try:
        page.goto(f'{address}/doc/tree/nbs/{name}.ipynb'); page.locator('.jp-Cell').first.wait_for()
        page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
        t = time.perf_counter()
        for item in ('Run', 'Run All Cells'): page.get_by_role('menuitem', name=item, exact=True).click()
        state = ran(page, [c['id'] for c in cells if c['cell_type'] == 'code' and ''.join(c['source']).strip()], 0); t = time.perf_counter() - t
        said = [''.join(o.get('text', '')) for c in state.values() for o in c['outputs'] if o.get('name') == 'stderr']; assert not said, said
        times[0][name] = t
        for i, answer in exercises(cells):
            c = state[cells[i]['id']]; was = results(c); assert not was.endswith('True'), (c['source'], 'comes solved')
            page.evaluate(GO, i); page.keyboard.press('Enter'); page.keyboard.press('Control+End'); page.keyboard.press('Home')
            page.keyboard.insert_text(answer + '\n'); page.keyboard.press('Shift+Enter')
            since = max(x['n'] or 0 for x in state.values()); state = ran(page, [c['id']], since); done = state[c['id']]; now = results(done)
            lines = c['source'].rstrip().splitlines(); assert done['source'].split() == '\n'.join([*lines[:-1], answer, lines[-1]]).split(), done['source']
            assert now.endswith('True') if was.endswith('False') else now != was and 'False' not in now, (answer, was, now)
            times[1][name] = times[1].get(name, 0) + 1
        shoot(page, f'course_{name}')
        page.logs = [l for l in page.logs if urllib.parse.urlsplit(l[1]).path != '/api/kernels']        # it stumbles over a kernel that is just ending
        clean(page)
    finally: page.evaluate('() => window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()')       # 58 kernels would fill the memory

DEMOS = """
from IPython.display import display
from hqgnet_nb.widgets import compare_demo, degrade_demo, sample_images, strength_demo
some = sample_images('fundus', 1, 160); refs = {n: im['ref'] for n, im in some.items()}
display(strength_demo('fundus-tiny'), compare_demo(some, {'darker': lambda x: x//2, 'negative': lambda x: 255 - x}, refs), degrade_demo('fundus'))
"""

def test_jupyterlab(page, tmp_path):
    with run_in_lab(page, tmp_path, DEMOS):
        demo = page.locator('.hqgnet[aria-label*=strength]'); use(demo, page); drag_dial(demo, page); upload(demo, page, tmp_path); save(demo, page, tmp_path)
        shoot(demo, 'lab'); compare, spoil = (page.locator(f'.hqgnet[aria-label*={what}]') for what in ('compare', 'degrade'))
        linked(compare, page); spoiled(spoil, page)
        for d in (compare, spoil): told(d)
        clean(page)

TRAINING = """
from IPython.display import display
from hqgnet_nb.data import unpaired_dls
from hqgnet_nb.degrade import degrade, sample_params
from hqgnet_nb.generator import HQGNet
from hqgnet_nb.learner import HQGLearner
from hqgnet_nb.losses import n_style
from hqgnet_nb.phantoms import phantom
from hqgnet_nb.widgets import training_monitor
import hqgnet_nb.train
some = [phantom('fundus', 72, s) for s in range(8)]
dls = unpaired_dls([degrade(q['image'], sample_params('fundus', s), q['fov']) for s, q in enumerate(some[:4])], [q['image'] for q in some[4:]], 64, 2, 0)
watch = training_monitor(every=2); display(watch.show())
learn = HQGLearner(dls, net=HQGNet(3, (4, 8, 8, 8), (4, 4, 8, 8), n_probe=n_style(3)), seed=0, cbs=watch); learn.remove_cb(learn.progress)
learn.train_for(steps=STEPS, valid_every=STEPS//3)
"""

DRAWN = """c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set();
  for (let k = 0; k < d.length; k += 4) s.add(`rgb(${d[k]}, ${d[k + 1]}, ${d[k + 2]})`); return [...s]; }"""                  # the colours of a canvas

def test_training_monitor(page, tmp_path):
    "Losses and pictures come while the kernel is busy with the training, and all of them are there in the end"
    steps = 90
    with run_in_lab(page, tmp_path, TRAINING.replace('STEPS', str(steps))):
        view = page.locator('.hqgnet[aria-label*=monitor]'); view.wait_for(); losses = view.locator('canvas').first
        count, said = lambda: int(view.get_attribute('data-points') or 0), lambda: view.get_by_role('status').inner_text()
        seen, faces, t = [], [], time.monotonic()
        while 'ended' not in said():
            assert time.monotonic() - t < 2*PATIENCE/1000, ('the training does not end', said(), count())
            if count() > (seen[-1] if seen else 0): seen.append(count())
            if (text := view.locator('figcaption').inner_text()) and text not in [f for f, _ in faces]: faces.append((text, pixels(view)))
            page.wait_for_timeout(100)
        assert len(seen) >= 3, ('curves grow while it trains', seen)
        assert len(faces) >= 2 and all(text.startswith('step ') and 'input, enhanced' in text for text, _ in faces), [f for f, _ in faces]
        assert (faces[0][1] != faces[-1][1]).any() and faces[0][1].std() > 5, 'the same images, as they are enhanced by then'
        page.wait_for_timeout(500); names = view.locator('.key span').count()
        assert f'step {steps}' in said() and names >= 4 and count() == names*steps//2, ('all the points', count(), names)
        inked = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, k) => k % 4 === 3 && v).length"
        assert losses.evaluate(inked) > 2000, 'curves are drawn'
        plain = 'es => es.map(e => getComputedStyle(e)).filter(s => s.backgroundImage === "none").map(s => s.backgroundColor)'
        marks = view.locator('.key i').evaluate_all(plain)
        assert len(marks) >= 4 and {*marks} <= {*losses.evaluate(DRAWN)}, 'each of the key'
        told(view); shoot(view, 'monitor'); clean(page)

STAND_IN = """([setup, pictures]) => {
  const bytes = pictures.map(p => new DataView(Uint8Array.from(atob(p), c => c.charCodeAt(0)).buffer)), real = window.createImageBitmap;
  const slow = b => b.size === bytes[0].byteLength ? 400 : 0;
  window.createImageBitmap = async b => { await new Promise(done => setTimeout(done, slow(b))); return real(b); };
  let hear; window.sent = []; window.answer = (m, ...k) => hear(m, k.map(i => bytes[i]));
  window.render({model: {get: () => setup, on: (what, f) => { hear = f; }, send: (m, c, b) => sent.push({...m, size: b.length})}, el: document.body}); }"""

def test_the_monitor_draws_what_is_below_zero(page):
    page.goto('about:blank'); script = (Path(widgets.__file__).parent/'static/demo.js').read_text(encoding='utf-8')
    page.add_script_tag(content='{' + script.replace('export default {render};', 'window.render = render;') + '}')
    page.evaluate("render({model: {get: () => ({view: 'monitor'}), on: (what, f) => { window.hear = f; }, send: () => 0}, el: document.body})")
    page.evaluate("[1, 2, 3].forEach(step => hear({type: 'note', step, losses: {up: 2, down: -3}}))")
    view = page.locator('.hqgnet'); page.wait_for_function("document.querySelector('.hqgnet').dataset.points === '6'")
    marks = view.locator('.key i').evaluate_all('es => es.map(e => getComputedStyle(e).backgroundColor)')
    assert len(marks) == 2 and {*marks} <= {*view.locator('canvas').first.evaluate(DRAWN)} and 'down -3.00' in view.locator('.key').inner_text()

def stand_in(page):
    "(demo, types of the questions so far, a function that answers one) of a page where the test is the kernel; pictures 0, 1, 2 are grey, 13, 18, 23 high"
    back = Strength(Enhancer.from_pretrained('fundus-tiny', 'cpu'), dict.fromkeys(('one', '<b>two</b>', 'three'), np.zeros((8, 8, 3), np.uint8)))
    def png(v):
        out = io.BytesIO(); Image.fromarray(np.full((8 + v//8, 8, 3), v, np.uint8)).save(out, 'PNG'); return base64.b64encode(out.getvalue()).decode()
    page.goto('about:blank'); static = Path(widgets.__file__).parent/'static'; script = (static/'demo.js').read_text(encoding='utf-8')
    page.add_style_tag(path=static/'demo.css')
    page.add_script_tag(content='{' + script.replace('export default {render};', 'window.render = render;') + '}')
    page.evaluate(STAND_IN, [back.setup(), [png(v) for v in (40, 80, 120)]]); demo = page.locator('.hqgnet')
    return demo, lambda: page.evaluate('sent.map(m => m.type)'), lambda m, *k: page.evaluate('([m, k]) => answer(m, ...k)', [m, list(k)])

def test_a_map_is_of_its_picture(page):
    "While the strength moves no map of another strength lies over the picture, and key and numbers are marked as old until their own come"
    demo, types, answer = stand_in(page); right = lambda: pixels(demo)[0, -1].tolist()
    marked = "old => [...document.querySelectorAll('dl, .key')].every(e => (e.ariaBusy === 'true') === old && (getComputedStyle(e).opacity < .6) === old)"
    looks = lambda old: page.wait_for_function(marked, arg=old)
    picture = lambda quick, **more: dict(type='picture', quick=quick, strength=1, **more); full = dict(numbers=[['change', '1.0']], key=[['#fff', 'brighter']])
    answer(dict(type='image', index=0, name='one', text=''), 1); looks(old=True)
    answer(picture(False, numbers=[], key=[]), 1); looks(old=False); assert right() == 3*[80]
    demo.get_by_label('Over the picture').select_option('difference'); answer(picture(False, **full), 1, 2)
    demo.locator('.key span').wait_for(); assert right() == 3*[120], 'the map'
    demo.get_by_label('Strength').press('ArrowLeft'); assert page.evaluate('sent.at(-1).quick') is True
    answer(picture(True), 1); looks(old=True); assert right() == 3*[80], 'the picture of now, and no map of before'
    assert page.evaluate('sent.at(-1).quick') is False; answer(picture(False, **full | dict(numbers=[['change', '0.9']])), 1, 2)
    looks(old=False); assert right() == 3*[120] and demo.locator('dd').inner_text() == '0.9'
    demo.get_by_label('Image', exact=True).select_option(label='three'); answer(dict(type='image', index=2, name='three', text=''), 1)
    looks(old=True); assert right() == 3*[80], 'another image'
    clean(page)

def test_questions_and_answers(page):
    "What was asked for once is not lost while a picture is on its way; answers are shown in their order; an error leaves the name of what is shown"
    demo, types, answer = stand_in(page)
    shown = lambda n: page.wait_for_function(f'document.querySelector("canvas").height === {n}')
    picture = dict(type='picture', quick=False, numbers=[], key=[], strength=1); answer(dict(type='image', index=0, name='one', text=''), 0)
    page.wait_for_function('sent.length === 2'); assert types() == ['image', 'render']
    image = demo.get_by_label('Image', exact=True); image.select_option(label='<b>two</b>'); demo.get_by_role('button', name='Save').click()
    demo.locator('input[type=file]').first.set_input_files(dict(name='x.png', mimeType='image/png', buffer=bytes(2**20 + 1))); page.wait_for_timeout(300)
    dial = demo.get_by_label('Strength'); dial.focus()
    for _ in range(3): page.keyboard.press('ArrowLeft')
    assert dial.get_attribute('aria-valuetext') == '97 %' and types() == ['image', 'render'], 'one at a time'
    answer(picture, 1); answer(dict(type='image', index=1, name='<b>two</b>', text=''), 2); page.wait_for_timeout(100)
    assert types() == ['image', 'render', 'image', 'save'], 'another image and a file are not dropped for a picture'
    shown(23); assert demo.locator('canvas').bounding_box()['height'] < 800, 'a tall image fits on the screen'
    answer(dict(type='error', text='<i>no</i>')); page.wait_for_timeout(100)
    assert types()[4:] == ['upload', 'upload'] and demo.get_by_role('alert').inner_text() == '<i>no</i>', 'words, no markup'
    answer(dict(type='error', text='not an image')); page.wait_for_timeout(100); assert types()[6:] == ['render'] and page.evaluate('sent[6].strength') == .97
    answer(picture, 0); page.wait_for_timeout(30); dial.press('ArrowLeft'); answer(picture, 1); page.wait_for_timeout(700); shown(23)
    assert (pixels(demo)[0, -1] == 80).all(), 'the later picture stays, though the first took longer to unpack'
    image.select_option(label='three'); answer(picture, 1); answer(dict(type='error', text='three: cannot be read')); page.wait_for_timeout(100)
    assert image.evaluate('e => e.selectedOptions[0].text') == '<b>two</b>' and 'three' in demo.get_by_role('alert').inner_text()
    clean(page)

def test_without_a_kernel(page, tmp_path):
    back = Strength(Enhancer.from_pretrained('fundus-tiny', 'cpu'), sample_images('fundus', 1, 160), sample_guides('fundus', 1))
    index = write_still(tmp_path/'still', back, strengths=(0, .5, 1), overlays=('difference',))
    page.goto(index.as_uri()); demo = page.locator('.hqgnet'); use(demo, page); assert demo.locator('input[type=file], button').count() == 0
    for width in (1280, 800, 360):
        page.set_viewport_size(dict(width=width, height=900)); page.wait_for_timeout(200); shoot(page, f'still_{width}')
        assert page.evaluate('document.documentElement.scrollWidth') <= width, 'no wider than the screen'
    clean(page)

def test_the_site_has_a_demo_that_moves(page):
    "The page of the built site, as a server gives it: keys, mouse, guide, map and split, and no kernel"
    site = Path(__file__).resolve().parent.parent/'_docs'
    if not (site/'_static/demo/data.js').exists(): pytest.skip("no site with a demo in _docs: 'make docs' builds it")
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            page.goto(f'http://127.0.0.1:{server.server_port}/search.html?q=AdaLIN'); page.locator('#search-results a[href*="06_varnorm"]').first.wait_for()
            page.goto(f'http://127.0.0.1:{server.server_port}/demo.html'); demo = page.locator('.hqgnet'); use(demo, page); shoot(page, 'site')
            clean(page, '/favicon.ico')
        finally: server.shutdown()
