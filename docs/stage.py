"""What the site is built from: `python docs/stage.py FOLDER` gathers it there. A file whose content is the same is left alone, so Sphinx
reads again only what changed.

Notebooks without directives and hidden cells, with an anchor and links to the library's pages at each exported cell; cards; the
pages that are generated; the landing page, which is the README with the tables of contents.
"""
import json, re, sys
from pathlib import Path
import api
from marks import md, table

ROOT = Path(__file__).resolve().parent.parent
GROUPS = [('Foundations', 4), ('Method', 10), ('Training', 11), ('Measuring', 15), ('Use', 20), ('Results', 100)]     # title, first number beyond
ELSEWHERE = {20: 'Use', 24: 'Training', 25: 'Foundations'}             # numbers that stand beyond their group; the glossary is the first of the course
PICTURES = '.png', '.jpg', '.jpeg', '.gif', '.svg', '.webp'


NAME = re.compile(r'\[?`(\w+\.\w+)((?:\.\w+)*)`(?:\]\(\w+\.ipynb[^)]*\))?')         # with the notebook's own link round it, if there is one

def split(source):
    "(directives, source without their lines) of a code cell"
    lines = source.splitlines()
    marks = [re.match(r'#\s?\|\s*(.+?)\s*$', l) for l in lines]
    return [m[1].replace(': ', ':') for m in marks if m], '\n'.join(l for l, m in zip(lines, marks) if not m).strip('\n')

def linked(source, names):
    "Markdown whose tables' `module.name` and `module.name.part` lead to the library's pages, where `names` has the full name of it"
    def link(m): return f'{{py:obj}}`{m[1]}{m[2]} <{names[m[1]]}>`' if m[1] in names else m[0]
    return '\n'.join(re.sub(NAME, link, l) if l.startswith('|') else l for l in source.split('\n'))

def notebook(path, exported):
    "The notebook for the site; `exported` gives for the id of a cell the (name, full name) of what it exports"
    known = {full.removeprefix('hqgnet_nb.'): full for cell in exported.values() for _, full in cell}
    nb, cells = json.loads(path.read_text(encoding='utf-8')), []
    note = lambda id, text: cells.append(dict(cell_type='markdown', id=id, metadata={}, source=text))
    for c in nb['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] != 'code':
            source = linked(source.replace('](index.ipynb)', '](../index.md)'), known)           # the landing page
            if c['cell_type'] == 'markdown': cells.append(c | dict(source=source))
            continue
        marks, source = split(source)
        names = exported.get(c['id'], [])
        if names: note(f'at-{c["id"]}', f'(cell-{c["id"]})=\n')
        if 'hide' in marks or not source: continue
        tags = [t for t, on in {'remove-input': {'echo:false', 'hide_input'}, 'remove-output': {'hide_output'}}.items() if on & set(marks)]
        cells.append(c | dict(source=source, metadata=c['metadata'] | dict(tags=tags)))
        if names: note(f'to-{c["id"]}', '{.exported}\n' + ' · '.join(f'{{py:obj}}`{n} <{full}>`' for n, full in names))
    nb['cells'] = cells
    nb['metadata']['language_info'] = dict(name='python', pygments_lexer='ipython3')      # knows `!command`
    return json.dumps(nb, ensure_ascii=False, indent=1)

def value(v, depth=0):
    "A value of a card as Markdown: text as it is, a dictionary or a list as a list"
    pad = '\n' + '  '*depth + '- '
    if isinstance(v, dict): return ''.join(f'{pad}{md(str(k).replace("_", " "))}: {value(x, depth + 1)}' for k, x in v.items())
    if isinstance(v, list) and any(isinstance(x, (dict, list)) or len(str(x)) > 30 for x in v): return ''.join(pad + value(x, depth + 1) for x in v)
    if isinstance(v, list): return ', '.join(map(str, v)) or 'none'
    if isinstance(v, bool) or v is None: return {True: 'yes', False: 'no', None: 'none'}[v]
    return f'{v:.4g}' if isinstance(v, float) else md(str(v)) if isinstance(v, str) else str(v)

HEADS = dict(psnr='PSNR, dB', ssim='SSIM', vesselness_auc='vesselness AUC')

def measured(rows):
    "A table of methods: a measure with its interval in each cell"
    def cell(k, v):
        d = 2 if k == 'psnr' else 3
        return md(f'{v[0]:.{d}f} [{v[1]:.{d}f}, {v[2]:.{d}f}]' if isinstance(v, list) else str(v))
    return '\n'.join(table([HEADS.get(k, k) for k in rows[0]], [[cell(k, r.get(k, '')) for k in rows[0]] for r in rows]))

def card(folder):
    "(title, page) of the weights in a folder, from its card.json: what it says, in its order"
    d = json.loads((folder/'card.json').read_text(encoding='utf-8'))
    short = {k: v for k, v in d.items() if not isinstance(v, (dict, list)) and len(str(v)) <= 60}
    def full(k, v):
        if k == 'command': return f'```\n{v}\n```'
        if not isinstance(v, dict) or 'rows' not in v: return value(v)
        return value({x: y for x, y in v.items() if x != 'rows'}) + '\n\n' + measured(v['rows'])
    long = [f'## {str(k).replace("_", " ").capitalize()}\n\n{full(k, v)}\n' for k, v in d.items() if k not in short]
    rows = table(('fact', 'value'), [(md(str(k).replace('_', ' ')), value(v)) for k, v in short.items()])
    return '\n'.join([f'# {folder.name}', '', f'Weights that come with the library, in `hqgnet_nb/weights/{folder.name}`.', '', *rows, *long])

def gallery(folder, results):
    "The page of pictures in a folder and of the grids of the results, in the order of captions.json, then by name"
    captions = json.loads((folder/'captions.json').read_text(encoding='utf-8')) if (folder/'captions.json').exists() else {}
    found = sorted(p.name for p in [*folder.glob('*'), *results.glob('grid_*')] if p.suffix.lower() in PICTURES)
    order = [n for n in captions if n in found] + [n for n in found if n not in captions]
    figures = [f'```{{figure}} gallery/{n}\n:alt: {captions.get(n, Path(n).stem)}\n\n{captions.get(n, Path(n).stem.replace("_", " "))}\n```\n' for n in order]
    return '# Gallery\n\n' + ('\n'.join(figures) or 'No pictures yet; the notebooks have many.\n')

def toctree(caption, entries, depth=1):
    return f'```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: {depth}\n\n' + '\n'.join(entries) + '\n```\n' if entries else ''

def build():
    "{path: text or bytes} of everything that the site is made from"
    here, lib = ROOT/'docs', ROOT/'hqgnet_nb'
    out, exported = dict(api.pages(lib)), {}
    for m in api.modules(lib):
        for n, node in m.own().items(): exported.setdefault(m.cell(node), []).append((n, f'hqgnet_nb.{m.name}.{n}'))
    nbs = [p for p in sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))]
    out |= {f'nbs/{p.name}': notebook(p, exported) for p in nbs}
    cards = sorted(p.parent for p in (lib/'weights').glob('*/card.json'))
    out |= {f'models/{p.name}.md': card(p) for p in cards}
    names = [f'- [{p.name}]({p.name}.md)' for p in cards]
    out['models/index.md'] = '# Models\n\nCards of the trained weights that come with the library.\n\n' + ('\n'.join(names) or 'None yet.') + '\n\n' + \
        toctree('', [p.name for p in cards]).replace(':caption: \n', '')
    data = sorted(p for p in (ROOT/'data').glob('*.md') if p.stem != 'README')
    out |= {f'data/{p.name}': p.read_text(encoding='utf-8') for p in data}
    out['data/README.md'] = (ROOT/'data/README.md').read_text(encoding='utf-8') + '\n' + toctree('', [p.stem for p in data]).replace(':caption: \n', '')
    out |= {n: (ROOT/n).read_text(encoding='utf-8') for n in ('CHANGELOG.md', 'CONTRIBUTING.md')}
    files = '<link rel="stylesheet" href="_static/demo/demo.css">' + ''.join(f'<script src="_static/demo/{n}.js" defer></script>' for n in ('data', 'demo'))
    demo = files if (here/'_static/demo/demo.js').exists() else '<p>The demo is not part of this build.</p>'
    out['demo.md'] = (here/'demo.md').read_text(encoding='utf-8').replace('<!-- demo.js -->', demo)
    results = ROOT/'nbs/results'; out['gallery.md'] = gallery(here/'gallery', results)
    out |= {f'gallery/{p.name}': p.read_bytes() for p in [*(here/'gallery').glob('*'), *results.glob('grid_*')] if p.suffix.lower() in PICTURES}
    out |= {f'README_files/{p.name}': p.read_bytes() for p in (ROOT/'README_files').glob('*')}
    def group(p):
        n = int(re.match(r'\d+', p.stem)[0]); return ELSEWHERE.get(n) or next(title for title, high in GROUPS if n < high)
    glossary_first = sorted(nbs, key=lambda p: not p.stem.startswith('25'))
    trees = [toctree(title, [f'nbs/{p.stem}' for p in glossary_first if group(p) == title]) for title, _ in GROUPS]
    trees += [toctree('See', ['gallery', 'demo']), toctree('Reference', ['api/index', 'data/README', 'models/index']),
              toctree('Project', ['CONTRIBUTING', 'CHANGELOG'])]
    out['index.md'] = re.sub(r'^<!--.*?-->\s*', '', (ROOT/'README.md').read_text(encoding='utf-8')).replace('docs/gallery/', 'gallery/')
    out['index.md'] += '\n' + '\n'.join(trees)
    return out

def write(folder):
    "Writes `build()` below a folder and takes away what is no longer part of it; returns how many files changed"
    folder, changed = Path(folder), 0
    out = {folder/k: v if isinstance(v, bytes) else v.encode() for k, v in build().items()}
    for old in [p for p in folder.rglob('*') if p.is_file() and p not in out]: old.unlink(); changed += 1
    for path, data in out.items():
        if path.exists() and path.read_bytes() == data: continue
        path.parent.mkdir(parents=True, exist_ok=True); path.write_bytes(data); changed += 1
    return changed

if __name__ == '__main__': print(f'{write(sys.argv[1])} pages changed')
