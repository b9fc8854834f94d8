"""What `make readme` and `make notebooks` do, and the gate with them: README.md from nbs/index.ipynb; notebooks run in place.

python tests/notebooks.py readme
python tests/notebooks.py execute [--slow] [nbs/04_wavelet.ipynb ...]
"""
import argparse, ast, re, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAG = re.compile(r'^#\|\s*(\w+)', re.M)
LINK = re.compile(r'(\]\(|\b(?:src|href)=")(?![a-z]+:|[#/])([^)"\s]+)')    # a target that is neither a URL nor an anchor

def flags(cell): return set(FLAG.findall(cell.source)) if cell.cell_type == 'code' else set()

def _from_root(m):
    "A link as seen from nbs/, rewritten as seen from the folder above"
    return m.group(1) + (m.group(2)[3:] if m.group(2).startswith('../') else f'nbs/{m.group(2)}')

def readme(root=ROOT):
    "{path from the root: bytes} of README.md and of the pictures that the index notebook's outputs hold"
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(Path(root)/'nbs/index.ipynb', 4)
    nb.metadata.language_info = dict(name='python')          # cleaned away in the file; it names the language of code blocks
    nb.cells = [c for c in nb.cells if not flags(c) & {'hide', 'default_exp'}]
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = LINK.sub(_from_root, c.source)
        elif 'echo' in flags(c): c.metadata.setdefault('tags', []).append('remove_input')     # `#| echo: false`
        if c.cell_type == 'code': c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
    exporter = MarkdownExporter()
    exporter.config.TagRemovePreprocessor.update(enabled=True, remove_input_tags=('remove_input',))
    exporter = MarkdownExporter(config=exporter.config)
    text, res = exporter.from_notebook_node(nb, {'output_files_dir': 'README_files', 'unique_key': 'README'})
    text = re.sub(r'\n{3,}', '\n\n', '\n'.join(l.rstrip() for l in text.splitlines())).strip() + '\n'
    note = '<!-- Written by `make readme` from nbs/index.ipynb; edit that notebook instead. -->\n'
    return {'README.md': (note + text).encode(), **{Path(k).as_posix(): v for k, v in res.get('outputs', {}).items()}}

def write_readme(root=ROOT):
    for name, data in readme(root).items():
        path = Path(root)/name; path.parent.mkdir(exist_ok=True); path.write_bytes(data); print('wrote', name)

def checking(code, name=r'check\w*'):
    "The first call in a piece of code of a function with this name"
    try: calls = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    except SyntaxError: return None
    return next((c for c in calls if re.fullmatch(name, c.func.id)), None)

def exercises(cells):
    """Each exercise that tells a reader how they did: (index of its cell, lines of Python that answer it, to be written before the cell's last line).
    They are those of the folded answer below it or, where that is given in words, what the hidden check after it hands to the same function"""
    text, found = [''.join(c['source']) for c in cells], []
    for i, c in enumerate(cells[:-1]):
        if c['cell_type'] != 'code' or '<summary>Answer' not in text[i + 1] or not (last := checking(text[i].rstrip().splitlines()[-1])): continue
        if block := re.search(r'(?s)```python\n(.*?)```', text[i + 1]): answer = block[1].rstrip('\n')
        else:
            hidden = (checking(t, last.func.id) for t in text[i + 2:] if t.startswith('#| hide')); right = next((h for h in hidden if h), None)
            answer = right and f"{', '.join(map(ast.unparse, last.args))} = {', '.join(map(ast.unparse, right.args))}"
        found.append((i, answer))
    return found

def execute(paths, slow=False, root=ROOT):
    "Run notebooks where they are and keep their outputs; True if all ran. Cells flagged slow keep their old outputs unless `slow`"
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    ok = True
    for path in paths:
        nb, t = nbformat.read(path, 4), time.time()
        # nbdev's own rule: these cells are not run; `eval: false` and notest never, slow on request
        rest = [(i, c) for i, c in enumerate(nb.cells) if c.cell_type == 'code' and (flags(c) & ({'notest'} | (set() if slow else {'slow'}))
                or re.search(r'^#\|\s*eval:\s*false', c.source, re.M | re.I))]
        for i, c in rest: nb.cells[i] = nbformat.v4.new_raw_cell('', id=c.id)
        try: NotebookClient(nb, timeout=None, kernel_name='python3', resources={'metadata': {'path': str(Path(root)/'nbs')}}).execute()
        except CellExecutionError as e: print(f'FAIL {path}: {e}'); ok = False; continue      # a broken run is not written
        for i, c in rest: nb.cells[i] = c
        for c in nb.cells:
            if c.cell_type == 'code': c.outputs = [o for o in c.outputs if (o.output_type, o.get('name')) != ('stream', 'stderr')]
        nb.metadata.pop('widgets', None)                       # a copy of every widget's script
        nbformat.write(nb, path)
        print(f'ran {path} ({time.time() - t:.1f} s)', flush=True)
    return ok

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('action', choices=['readme', 'execute']); ap.add_argument('paths', nargs='*', type=Path)
    ap.add_argument('--slow', action='store_true', help='run cells flagged slow too')
    a = ap.parse_intermixed_args()
    if a.action == 'readme': write_readme()
    else: sys.exit(not execute(a.paths or sorted((ROOT/'nbs').glob('*.ipynb')), a.slow))
