"""API pages, read from the modules' text: nothing of the library is imported, so the site builds without PyTorch.

`pages(lib)` yields (path, text): `api/NAME.md`, the exported definitions of each module as Sphinx's Python domain knows them, and
`source/NAME.md`, the module with an anchor for each line. What stands in a comment beside a parameter (nbdev's docments) becomes a table.
"""
import ast, io, re, tokenize
from pathlib import Path
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from marks import md, table

DEFS = ast.FunctionDef, ast.ClassDef
FENCE = '`'*8                                                          # of the outermost directive; what is inside has fewer


class Module:
    "One module of the library: its tree, its comments by line, what it exports and from which notebook cell each line comes"
    def __init__(self, path):
        self.name, self.text = path.stem, path.read_text(encoding='utf-8')
        self.lines, self.tree, self.defs, self.imports, self.exports, self.cells = self.text.splitlines(), ast.parse(self.text), {}, {}, [], []
        self.comments = {t.start[0]: t.string.lstrip('#').strip() for t in tokenize.generate_tokens(io.StringIO(self.text).readline)
                         if t.type == tokenize.COMMENT}
        for n in self.tree.body:
            if isinstance(n, DEFS): self.defs[n.name] = n
            elif isinstance(n, ast.ImportFrom): self.imports |= {a.asname or a.name: (n.module, a.name) for a in n.names if n.level}
            elif isinstance(n, ast.Assign):
                self.defs |= {x.id: n for t in n.targets for x in ast.walk(t) if isinstance(x, ast.Name)}
        if '__all__' in self.defs: self.exports = ast.literal_eval(self.defs['__all__'].value)
        for i, line in enumerate(self.lines, 1):
            if m := re.match(r'# %% \.\./nbs/(\S+)\.ipynb #(\S+)', line): self.cells.append((i, m[1], m[2]))
        self.notebook = self.cells[0][1] if self.cells else None

    def cell(self, node): return next((c for i, _, c in reversed(self.cells) if i < node.lineno), None)

    def own(self): return {n: self.defs[n] for n in self.exports if n in self.defs}

    def home(self, name, found):
        "The full name of something that is exported here and defined in another module, or None"
        where, what = self.imports.get(name, (None, name))
        m = next((m for m in found if m.name == where), None)
        return None if m is None else f'hqgnet_nb.{where}.{what}' if what in m.own() else m.home(what, found)


def call(fn, bound=False):
    "The signature of a function, as it is written"
    a = fn.args
    if bound: a = ast.parse(f'def f({ast.unparse(a)}): 0').body[0].args; (a.posonlyargs or a.args).pop(0)
    return f'({ast.unparse(a)})' + (f' -> {ast.unparse(fn.returns)}' if fn.returns else '')

def parameters(m, fn):
    "[(names, default, comment)] of a function, parameters that share a line and so a comment together, and the comment on what it returns"
    a, rows, body = fn.args, {}, fn.body[0].lineno
    pos = [*a.posonlyargs, *a.args]
    pairs = [*zip(pos, [None]*(len(pos) - len(a.defaults)) + a.defaults), *zip(a.kwonlyargs, a.kw_defaults)]
    pairs += [(x, None) for x in (a.vararg, a.kwarg) if x]
    last = max([(d or x).end_lineno for x, d in pairs], default=fn.lineno)
    for x, d in sorted(pairs, key=lambda p: p[0].lineno):
        if x.arg in ('self', 'cls'): continue
        line = (d or x).end_lineno
        star = '*' if x is a.vararg else '**' if x is a.kwarg else ''
        names, defaults, _ = rows.get(line, ([], [], ''))
        kind = f': {ast.unparse(x.annotation)}' if x.annotation else ''
        said = m.comments.get(line, '') if line < body else ''           # a comment after the body speaks of the body
        if line == last and m.lines[line - 1].split('#')[0].rstrip().endswith(':'): said = ''     # and one after the colon of the result
        rows[line] = names + [f'{star}{x.arg}{kind}'], defaults + ([ast.get_source_segment(m.text, d)] if d else []), said
    returns = ' '.join(m.comments[i] for i in range(last, body) if i in m.comments and m.lines[i - 1].split('#')[0].rstrip().endswith(':'))
    return list(rows.values()), returns

def function(m, fn, names, fence, kind='function', owner=None):
    "The lines of one function or method"
    rows, returns = parameters(m, fn)
    flags = [f':{f}:' for f in ('classmethod', 'staticmethod') if f in map(ast.unparse, fn.decorator_list)]
    sig = '' if kind == 'property' else call(fn, bound=owner and ':staticmethod:' not in flags)
    out = [f'{fence}{{py:{kind}}} {owner + "." if owner else ""}{fn.name}{sig}', *flags, '', *said(m, fn, names)]
    if any(c for _, _, c in rows): out += parameter_table(rows, names)
    if returns or (fn.returns and rows): out += ['**Returns** ' + (f'`{ast.unparse(fn.returns)}` ' if fn.returns else '') + md(returns, names), '']
    return [*out, fence, '']

def parameter_table(rows, names, what='parameter'):
    "The table of the result of `parameters`"
    cells = [(', '.join(f'`{n}`' for n in ns), ', '.join(f'`{" ".join(d.split())}`' for d in ds), md(c, names)) for ns, ds, c in rows]
    return table((what, 'default', 'meaning'), cells)

def said(m, node, names):
    "The docstring of a definition, and where it is: the notebook's cell and the source"
    places = ['<a href="../source/{0}.html#L-{1}">source</a>'.format(m.name, node.lineno)]
    if m.cell(node): places.insert(0, f'[notebook](#cell-{m.cell(node)})')
    text = [md(p, names) for p in re.split(r'\n\s*\n', ast.get_docstring(node) or '')] if isinstance(node, DEFS) else []
    return [x for p in text if p for x in (p, '')] + ['{.places}', ' · '.join(places), '']

def klass(m, c, names):
    "The lines of a class: how it is made, its fields, its public methods"
    methods = {n.name: n for n in c.body if isinstance(n, ast.FunctionDef)}
    init = methods.pop('__init__', None)
    bases = [f'{{py:obj}}`{b} <{names[b]}>`' if names.get(b) else f'`{b}`' for b in map(ast.unparse, c.bases)]
    out = [f'{FENCE}{{py:class}} {c.name}{call(init, bound=True) if init else ""}', '', *said(m, c, names)]
    if bases: out += ['Based on ' + ', '.join(bases), '']
    if init: out += parameter_table(parameters(m, init)[0], names)
    fields = [([ast.unparse(n.target) + ': ' + ast.unparse(n.annotation)], [ast.unparse(n.value)] if n.value else [], m.comments.get(n.end_lineno, ''))
              for n in c.body if isinstance(n, ast.AnnAssign)]
    out += parameter_table(fields, names, 'field')
    for name, fn in methods.items():
        if name.startswith('_') and name != '__call__' or not (ast.get_docstring(fn) or any(r[2] for r in parameters(m, fn)[0])): continue
        out += function(m, fn, names, FENCE[1:], 'property' if 'property' in map(ast.unparse, fn.decorator_list) else 'method', c.name)
    return [*out, FENCE, '']

def constant(m, name, node, names):
    "The lines of a constant: its value, shortened, and the comment beside or above it"
    values = {t.id: v for tgt in node.targets if isinstance(tgt, ast.Tuple) and isinstance(node.value, ast.Tuple) for t, v in zip(tgt.elts, node.value.elts)}
    value = (ast.get_source_segment(m.text, values.get(name, node.value)) or '').splitlines()
    if len(value) > 40: value = [*value[:40], '# and so on']
    note = next((m.comments[i] for i in (node.end_lineno, node.lineno, node.lineno - 1) if i in m.comments and not m.comments[i].startswith('%%')), '')
    short, block = (f':value: {value[0]}', []) if len(value) == 1 and len(value[0]) < 70 else ('', ['```python', *value, '```', ''])
    return [f'{FENCE}{{py:data}} {name}', short, '', md(note, names), '', *block, *said(m, node, names), FENCE, '']

def api_page(m, names, found):
    "The page of a module"
    links = [f'[notebook {m.notebook}](../nbs/{m.notebook}.ipynb)'] if m.notebook else []
    out = [f'# {m.name}', '', md(ast.get_docstring(m.tree) or ''), '', ' · '.join([*links, f'[source](../source/{m.name}.md)']), '',
           f'```{{py:module}} hqgnet_nb.{m.name}', '```', '']
    for name, n in m.own().items():
        out += klass(m, n, names) if isinstance(n, ast.ClassDef) else function(m, n, names, FENCE) if isinstance(n, DEFS) else constant(m, name, n, names)
    away = [f'{{py:obj}}`{n} <{full}>`' for n in m.exports if n not in m.defs and (full := m.home(n, found))]
    if away: out += ['## From other modules', '', 'Can be imported from here too: ' + ', '.join(away) + '.', '']
    return '\n'.join(out)

def source_page(m):
    "The module's text, coloured, with an anchor `L-number` for each line"
    code = highlight(m.text, PythonLexer(), HtmlFormatter(lineanchors='L', cssclass='highlight'))
    head = f'---\norphan: true\n---\n# Source of {m.name}\n\n[What it exports](../api/{m.name}.md)\n\n'
    return head + f'````{{raw}} html\n<div class="highlight-python source">{code}</div>\n````\n'

def modules(lib): return [Module(p) for p in sorted(Path(lib).glob('[!_]*.py'))]

def pages(lib):
    "(path, text) of every generated page"
    found, names = modules(lib), {}
    for m in found:                                                      # a name that two modules export links to neither
        for n in m.own(): names[n] = '' if n in names else f'hqgnet_nb.{m.name}.{n}'
    for m in found:
        here = names | {n: f'hqgnet_nb.{m.name}.{n}' for n in m.own()}
        yield f'api/{m.name}.md', api_page(m, here, found)
        yield f'source/{m.name}.md', source_page(m)
    tree = '\n'.join(m.name for m in found)
    rows = [(f'[{m.name}]({m.name}.md)', md(ast.get_docstring(m.tree) or '')) for m in found]
    head = '# Library\n\nOne page a module, written from the comments beside the parameters.\n\n'
    yield 'api/index.md', head + '\n'.join(table(('module', 'what it holds'), rows)) + f'\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n'
