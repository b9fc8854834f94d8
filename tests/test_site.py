"""The site: what writes its pages, and, where `make docs` has left one in _docs/, each of its links, requests and widths."""
import ast, functools, http.server, json, re, subprocess, sys, threading
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import pytest
from conftest import NO_CHROMIUM, chromium

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT/'_docs'
sys.path.insert(0, str(ROOT/'docs'))
api = pytest.importorskip('api'); import stage

LOADS = {'img': ('src', 'srcset'), 'script': ('src',), 'link': ('href',), 'iframe': ('src',), 'source': ('src', 'srcset'), 'video': ('src', 'poster'),
         'audio': ('src',), 'embed': ('src',), 'object': ('data',), 'form': ('action',), 'image': ('href', 'xlink:href'), 'use': ('href', 'xlink:href')}
OUTSIDE = re.compile(r'\s*(https?:)?//', re.I)
CSS_URL = re.compile(r'url\(\s*["\']?([^"\')]+)|@import\s+["\']([^"\']+)', re.I)

class Page(HTMLParser):
    "Anchors, links, what is loaded, and styles of one page"
    def __init__(self, path):
        super().__init__(); self.ids, self.links, self.loads, self.css, self.inside = [], [], [], [], None
        self.feed(path.read_text(encoding='utf-8')); self.close()
    def handle_starttag(self, tag, attrs):
        a = dict(attrs); self.inside = tag
        self.ids += {a[k] for k in ('id', 'name') if a.get(k) and (k == 'id' or tag == 'a')}
        if tag == 'a' and a.get('href') is not None: self.links.append(a['href'])
        self.loads += [u.split()[0] for k in LOADS.get(tag, ()) if a.get(k) for u in (a[k].split(', ') if k == 'srcset' else [a[k]])]
        if a.get('style'): self.css.append(a['style'])
    def handle_endtag(self, tag): self.inside = None
    def handle_data(self, data):
        if self.inside == 'style': self.css.append(data)
        if self.inside == 'script': self.loads += re.findall(r'\bimport\b[^;\n]*?["\'](https?:[^"\']+)', data)

@pytest.fixture(scope='module')
def site():
    "{path: Page} of a built site"
    if not (SITE/'index.html').exists(): pytest.skip("no site in _docs: 'make docs' builds it")
    return {p: Page(p) for p in sorted(SITE.rglob('*.html')) if '_static' not in p.parts}

def resolve(page, url):
    "(file, fragment) that a local address means"
    u = urlsplit(url); path = page if not u.path else (page.parent/unquote(u.path)).resolve()
    return (path/'index.html' if path.is_dir() else path), unquote(u.fragment)

def test_links_lead_somewhere(site):
    bad = []
    for page, p in site.items():
        for url in {*p.links, *p.loads}:
            if re.match(r'(https?|mailto|data|javascript):', url) or url in ('', '#'): continue
            path, anchor = resolve(page, url)
            if not path.is_file() or not path.is_relative_to(SITE): bad.append(f'{page.relative_to(SITE)}: {url}: no such file')
            elif anchor and path in site and anchor not in site[path].ids: bad.append(f'{page.relative_to(SITE)}: {url}: no such anchor')
    assert bad == []

def test_anchors_are_single(site):
    bad = {p.relative_to(SITE).as_posix(): [i for i, n in Counter(p_.ids).items() if n > 1] for p, p_ in site.items()}
    assert {k: v for k, v in bad.items() if v} == {}

def test_nothing_is_loaded_from_elsewhere(site):
    bad = [f'{page.name}: {u}' for page, p in site.items() for u in p.loads if OUTSIDE.match(u)]
    styles = [(page, c) for page, p in site.items() for c in p.css] + [(f, f.read_text(encoding='utf-8')) for f in SITE.rglob('*.css')]
    for page, text in styles:
        for u in (a or b for a, b in CSS_URL.findall(text)):
            if OUTSIDE.match(u): bad.append(f'{page.name}: {u}')
            elif not u.startswith(('data:', '#')) and not resolve(page, u)[0].is_file(): bad.append(f'{page.name}: {u}: no such file')
    assert bad == []

def test_everything_has_its_page(site):
    built, sources = (SITE/'index.html').stat().st_mtime, [*ROOT.glob('nbs/*.ipynb'), *ROOT.glob('hqgnet_nb/*.py'), *ROOT.glob('data/*.md')]
    if any(p.stat().st_mtime > built for p in sources): pytest.skip("the site in _docs is older than its sources: 'make docs' builds it")
    assert [p.name for p in ROOT.glob('nbs/[0-9]*.ipynb') if SITE/f'nbs/{p.stem}.html' not in site] == []
    assert [p.name for p in ROOT.glob('data/*.md') if SITE/f'data/{p.stem}.html' not in site] == []
    missing = [f'{m.name}.{n}' for m in api.modules(ROOT/'hqgnet_nb') for n in m.own() if f'hqgnet_nb.{m.name}.{n}' not in site[SITE/f'api/{m.name}.html'].ids]
    assert missing == []
    assert (SITE/'search.html') in site and (SITE/'searchindex.js').stat().st_size > 1e5

LOOK = """<!doctype html><meta charset=utf-8><pre id=out>not done</pre><script>
const pages = %s, widths = %s, out = [];
const wait = ms => new Promise(f => setTimeout(f, ms));
const held = e => { for (e = e.parentElement; e; e = e.parentElement) if (!['visible', ''].includes(getComputedStyle(e).overflowX)) return true; };
(async () => {
  for (const width of widths) for (const page of pages) {
    const f = document.createElement('iframe'); f.style.cssText = `width:${width}px;height:900px;border:0`; f.src = page;
    document.body.append(f); await new Promise(ok => f.onload = ok);
    const w = f.contentWindow, d = f.contentDocument;
    if (w.MathJax && w.MathJax.startup) await w.MathJax.startup.promise;
    d.querySelectorAll('details').forEach(e => e.open = true);
    await wait(20);
    const too = d.scrollingElement.scrollWidth - width;
    if (too > 0) {
      const wide = [...d.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1 && !held(e)).slice(0, 3);
      out.push(`${page} at ${width}: ${too} pixels too wide: ` + wide.map(e => e.tagName + '.' + e.className).join(' '));
    }
    for (const {name} of w.performance.getEntriesByType('resource'))
      if (!name.startsWith(location.origin) && !name.startsWith('data:')) out.push(`${page} asks for ${name}`);
    if (d.querySelector('mjx-merror, [data-mjx-error]')) out.push(`${page}: a formula cannot be read`);
    f.remove();
  }
  document.getElementById('out').textContent = JSON.stringify(out); document.title = 'done';
})();
</script>"""

class Quiet(http.server.SimpleHTTPRequestHandler):
    "Serves the site and the page that looks at it, and remembers what was not found"
    look, missing = b'', []
    def log_message(self, *args): pass
    def send_error(self, code, *args): self.missing.append(f'{code} {self.path}'); super().send_error(code, *args)
    def do_GET(self):
        if self.path != '/look.html': return super().do_GET()
        self.send_response(200); self.send_header('Content-Type', 'text/html'); self.end_headers(); self.wfile.write(self.look)

def test_pages_in_a_browser(site, tmp_path):
    "In Chromium no page is wider than a phone or a small window, asks for anything elsewhere or for a file that is not there, or writes to the console"
    browser = chromium()
    if browser is None: pytest.skip(NO_CHROMIUM)
    pages = [p.relative_to(SITE).as_posix() for p in site if p.parent.name != 'source'] + ['source/core.html']
    Quiet.look, Quiet.missing = (LOOK % (json.dumps(pages), [360, 800])).encode(), []
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            cmd = [browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path}', '--virtual-time-budget=3000000', '--timeout=500000',
                   '--enable-logging=stderr', '--window-size=1000,1000', '--dump-dom', f'http://127.0.0.1:{server.server_port}/look.html']
            p = subprocess.run(cmd, capture_output=True, text=True, timeout=600); dom = p.stdout
        finally: server.shutdown()
    said = re.search(r'<pre id="?out"?>(.*?)</pre>', dom, re.S)[1]
    assert said != 'not done' and json.loads(said) == []
    assert [m for m in Quiet.missing if 'favicon' not in m] == []
    console = re.findall(r'CONSOLE[^\]]*\] (".*?", source: \S*)', p.stderr, re.S)          # errors, warnings, and all else that a page says
    assert sorted({m for m in console if 'favicon' not in m and not m.startswith('"[PST]: ')}) == []            # but for the theme's own diary


# what writes the pages, without Sphinx ----------------------------------------------------------------------------------------

MODULE = '''"""A module"""

# %% auto #0
__all__ = ['LIMIT', 'both', 'Thing', 'away']

# %% ../nbs/99_made.ipynb #abc1
from .other import away
LIMIT = 3       # how many

# %% ../nbs/99_made.ipynb #abc2
def both(
    a, b, # B x 1 | B x 2, in [0, 1]
    *rest: int, # more
    c=(1, 2), # of `Thing`
    d=None,
) -> list: # of numbers
    "The sum of `a` and `b` [figure]"
    return [a, b]       # not a docment

class Thing:
    "Something"
    def __init__(self,
        n=1/3, # how much
    ): self.n = n
    def _hidden(self): "Not shown"
    @property
    def twice(self): "Two n"; return 2*self.n
    @classmethod
    def load(cls, path): # a file
        "A `Thing`"
'''

def test_api_page_says_what_the_source_says(tmp_path):
    (tmp_path/'made.py').write_text(MODULE); (tmp_path/'other.py').write_text('__all__ = ["away"]\ndef away(): "Away"\n')
    out = dict(api.pages(tmp_path)); text = out['api/made.md']
    assert set(out) == {'api/made.md', 'api/other.md', 'api/index.md', 'source/made.md', 'source/other.md'}
    for line in ['{py:function} both(a, b, *rest: int, c=(1, 2), d=None) -> list', r'| `a`, `b` |  | B x 1 \| B x 2, in \[0, 1\] |',
                 '| `*rest: int` |  | more |', '| `c` | `(1, 2)` | of {py:obj}`Thing <hqgnet_nb.made.Thing>` |', '| `d` | `None` |  |',
                 '**Returns** `list` of numbers',
                 r'The sum of `a` and `b` \[figure\]', '[notebook](#cell-abc2)', '{py:class} Thing(n=1 / 3)', '| `n` | `1/3` | how much |',
                 '{py:property} Thing.twice', '{py:method} Thing.load(path)', ':classmethod:', '{py:data} LIMIT', ':value: 3', 'how many',
                 '{py:obj}`away <hqgnet_nb.other.away>`']:
        assert line in text, (line, text)
    assert 'not a docment' not in text and '_hidden' not in text

def test_every_comment_beside_a_parameter_is_on_a_page():
    "No docment of an exported function is lost on the way"
    lib, lost = ROOT/'hqgnet_nb', []
    pages, squash = dict(api.pages(lib)), lambda s: re.sub(r'[\\`\s]|\{py:obj\}|<[^>]*>', '', s)
    for m in api.modules(lib):
        text = squash(pages[f'api/{m.name}.md'])
        for n in m.own().values():
            if not isinstance(n, ast.FunctionDef): continue
            wanted = [m.comments[i] for i in range(n.lineno, n.body[0].lineno) if i in m.comments]
            lost += [f'{m.name}.{n.name}: {c}' for c in wanted if squash(c) not in text]
    assert lost == []

def test_notebook_without_directives(tmp_path):
    code = lambda id, s: dict(cell_type='code', id=id, metadata={}, source=s, outputs=[], execution_count=None)
    cells = [code('a', '#| default_exp made'), code('b', '#| export\ndef f(): pass'), code('c', '#| hide\nsecret()'), code('d', '#| echo: false\nshow()'),
             dict(cell_type='markdown', id='e', metadata={}, source='# Title\n`made.f`\n| `made.f`, `made.f.x`, [`made.f`](n.ipynb#A-part), `made.g` |')]
    (tmp_path/'n.ipynb').write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    out = json.loads(stage.notebook(tmp_path/'n.ipynb', dict(b=[('f', 'hqgnet_nb.made.f')])))['cells']
    assert [c['id'] for c in out] == ['at-b', 'b', 'to-b', 'd', 'e']
    assert out[1]['source'] == 'def f(): pass' and '{py:obj}`f <hqgnet_nb.made.f>`' in out[2]['source']
    link = 'made.f <hqgnet_nb.made.f>`, {py:obj}`made.f.x <hqgnet_nb.made.f>`, {py:obj}`made.f <hqgnet_nb.made.f>`, `made.g` |'
    assert out[4]['source'] == '# Title\n`made.f`\n| {py:obj}`' + link, 'tables lead to the library'
    assert out[3]['source'] == 'show()' and out[3]['metadata']['tags'] == ['remove-input']

def test_cards_and_gallery(tmp_path):
    (tmp_path/'tiny').mkdir()
    row = dict(method='HQG-Net', psnr=[20.5, 19.25, 21], ssim=[.8125, .75, .875])
    said = dict(name='tiny', seconds=917.25, data='A | B ' + 'long '*20, held_out=dict(n=40, rows=[row]), limits=[])
    (tmp_path/'tiny/card.json').write_text(json.dumps(said))
    text = stage.card(tmp_path/'tiny')
    for want in '# tiny', '| seconds | 917.2 |', '## Held out', '- n: 40', '| method | PSNR, dB | SSIM |', \
            r'| HQG-Net | 20.50 \[19.25, 21.00\] | 0.812 \[0.750, 0.875\] |', '## Limits\n\nnone': assert want in text, text
    (tmp_path/'b.png').write_bytes(b''); (tmp_path/'a_1.jpg').write_bytes(b'')
    (tmp_path/'captions.json').write_text(json.dumps({'b.png': 'First', 'gone.png': 'Not here'}))
    (tmp_path/'results').mkdir(); (tmp_path/'results/grid_x.jpg').write_bytes(b''); (tmp_path/'results/curves_x.png').write_bytes(b'')
    text = stage.gallery(tmp_path, tmp_path/'results')
    assert text.index('gallery/b.png') < text.index('gallery/a_1.jpg') < text.index('gallery/grid_x.jpg')
    assert 'curves' not in text and 'First' in text and 'Not here' not in text
    assert 'No pictures yet' in stage.gallery(tmp_path/'tiny', tmp_path/'none')
