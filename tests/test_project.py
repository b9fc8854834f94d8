"""Facts about the project that no notebook shows: metadata, licence, cards, the sample, paths."""
import ast, hashlib, importlib, importlib.metadata as md, json, os, re, shutil, subprocess, sys, time
from configparser import ConfigParser
from pathlib import Path
import pytest, yaml
import gate, notebooks
from conftest import chromium

EXTRAS = 'medical video metrics seg export app distributed course docs dev'.split()
CARDS = 'phantoms retina eyeq drive chase_db1 hrf ccm corn2 kvasir_seg cvc_clinicdb'.split()
HEADINGS = ['What', 'How many', 'LQ and HQ', 'Masks', 'Source', 'Terms', 'Folder layout', 'Splitting']

@pytest.fixture(scope='module')
def cfg(root):
    parser = ConfigParser(delimiters=['='], interpolation=None); parser.read(root/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']

def names(reqs): return {re.match(r'[\w.-]+', r)[0].lower().replace('_', '-') for r in reqs}

def test_which_browser(monkeypatch, tmp_path):
    "The one that is named, the system's, playwright's own, none: in this order"
    find = lambda: chromium.__wrapped__(); monkeypatch.setenv('PLAYWRIGHT_BROWSERS_PATH', str(tmp_path/'own'))
    (tmp_path/'chromium-browser').touch(0o755); monkeypatch.delenv('HQGNET_CHROMIUM', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path)); assert find() == str(tmp_path/'chromium-browser')
    with monkeypatch.context() as m: m.setenv('HQGNET_CHROMIUM', '/named'); assert find() == '/named'
    monkeypatch.setenv('PATH', str(tmp_path/'none')); assert find() is None
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with sync.sync_playwright() as p: own = Path(p.chromium.executable_path)
    assert own.is_relative_to(tmp_path); own.parent.mkdir(parents=True); own.touch(); assert find() == str(own)

def test_gate_tells_of_notebooks_that_take_long(monkeypatch, tmp_path, capsys):
    "What takes more than a minute is told, and what fails fails, whatever it took"
    took = {'00_core': 59, '01_phantoms': 61, '04_wavelet': 2, '15d_compare': 299, '10_learner': 1200}
    bad = {'04_wavelet': (1, 'no'), '10_learner': (124, 'stopped')}
    assert set(gate.LONG) <= {p.stem for p in gate.NBS}
    monkeypatch.setattr(gate, 'NBS', [Path(f'{n}.ipynb') for n in took]); monkeypatch.setattr(gate, 'tally', gate.Tally())
    monkeypatch.setattr(gate, 'copy_repo', lambda to: to)
    def in_copies(what, names, *_):
        for n in names: code, out = bad.get(n, (0, 'Success.')); yield dict(name=n, code=code, seconds=took[n], out=out)
    monkeypatch.setattr(gate, 'in_copies', in_copies); gate.run_notebooks(tmp_path); said = capsys.readouterr().out.splitlines()
    assert {l.split()[2].split('.')[0]: l.split()[0] for l in said if '.ipynb (' in l} == {n: 'FAIL' if n in bad else 'PASS' for n in took}
    told, = (l for l in said if 'above 60 s' in l); assert all((f'{n} {s} s' in told) == (s > 60) for n, s in took.items())
    assert gate.tally.failed == [f'notebook: {n}.ipynb' for n in sorted(bad, key=lambda n: n not in gate.LONG)]

def test_version_is_one(cfg):
    import hqgnet_nb
    assert hqgnet_nb.__version__ == cfg['version'] == md.version('hqgnet_nb')

def test_changelog_names_the_version(root, cfg): assert f"## {cfg['version']}" in (root/'CHANGELOG.md').read_text()

@pytest.mark.parametrize('extra', EXTRAS)
def test_extra_in_metadata(cfg, extra):
    assert extra in md.metadata('hqgnet_nb').get_all('Provides-Extra')
    built = names(r for r in md.requires('hqgnet_nb') if re.search(rf'extra == [\'"]{extra}[\'"]', r))
    assert built == names(cfg[f'{extra}_requirements'].split()) != set()

def test_requirements_in_metadata(cfg):
    assert names(r for r in md.requires('hqgnet_nb') if 'extra ==' not in r) == names(cfg['requirements'].split())

def test_library_does_not_need_the_developer_tools(cfg):
    assert not names(cfg['requirements'].split()) & {'nbdev', 'execnb', 'ghapi', 'pytest', 'ruff', 'jupytext', 'nbclient', 'jupyterlab'}

def test_python_in_metadata(cfg): assert md.metadata('hqgnet_nb')['Requires-Python'] == '>=' + cfg['min_python']

def test_command_points_at_a_function():
    ep = next(e for e in md.entry_points(group='console_scripts') if e.name == 'hqgnet')
    assert ep.value == 'hqgnet_nb.cli:main' and callable(ep.load())

def test_licence_is_apache_2(root):
    text = (root/'LICENSE').read_bytes()
    assert hashlib.sha256(text).hexdigest() == 'cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30'  # as published

def test_citation(root, cfg):
    c = yaml.safe_load((root/'CITATION.cff').read_text())
    assert c['cff-version'] == '1.2.0' and c['authors'] and c['message']
    assert c['version'] == cfg['version'] and c['license'] == 'Apache-2.0'
    paper, = c['references']
    assert paper['doi'] == '10.1109/TNNLS.2023.3315307' and len(paper['authors']) == 8

def test_readme_shows_a_picture_at_once_and_the_rows_of_the_demo(root):
    text = (root/'README.md').read_text(); first = text[:text.index('## Two commands')]
    assert all((root/f).is_file() for f in re.findall(r'!\[.*?\]\((.+?)\)', text)) and '![' in first, 'index.ipynb was run without demo_out?'
    from hqgnet_nb.baselines import BASELINES
    rows = re.findall(r'^\| ([^|]+) \| \d+ \|', text, re.M); assert rows == [*BASELINES, 'HQG-Net'], rows
    real = re.findall(r'^\| ([^|]+) \| \d\.\d+ ', text, re.M); assert real[:len(BASELINES)] == [*BASELINES], real

def test_readme_says_what_it_is_not_for(root): assert 'not for diagnosis' in (root/'README.md').read_text().lower()

@pytest.mark.parametrize('card', CARDS)
def test_card(root, card):
    text = (root/f'data/{card}.md').read_text()
    parts = dict(zip(re.findall(r'^## (.+)$', text, re.M), re.split(r'^## .+$', text, flags=re.M)[1:]))
    assert list(parts)[:len(HEADINGS)] == HEADINGS
    assert all(len(parts[h].strip()) > 3 for h in HEADINGS)
    assert f'({card}.md)' in (root/'data/README.md').read_text()

def test_no_card_is_forgotten(root): assert {p.stem for p in (root/'data').glob('*.md')} == {*CARDS, 'README'}

def files(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}

def test_sample_is_complete(root):
    stems = [f'{i:04d}.png' for i in range(4)]
    folders = 'images masks artery vein disc macula fov degraded'.split()
    want = {f'{d}/{s}' for d in folders for s in stems} | {'phantoms.json', 'degraded/degradations.json'}
    assert set(files(root/'data/sample')) == want

def test_sample_comes_back_byte_for_byte(root, tmp_path):
    "`make sample`, as it is written in the Makefile, into another folder"
    venv = Path(sys.executable).parent.parent
    env = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MAKELEVEL')}
    cmd = ['make', '-s', 'sample', f'SAMPLE={tmp_path/"sample"}', f'VENV={venv}', '-o', f'{venv}/.installed']    # -o: do not install
    subprocess.run(cmd, cwd=root, env=env, check=True, stdin=subprocess.DEVNULL)
    old, new = files(root/'data/sample'), files(tmp_path/'sample')
    assert old.keys() == new.keys()
    assert [k for k in old if old[k] != new[k]] == []

def test_readme_of_the_sample_shows_the_commands_that_make_runs(root):
    recipe = re.search(r'^sample:.*\n((?:\t.*\n)+)', (root/'Makefile').read_text(), re.M)[1]
    commands = [l.strip().lstrip('@').replace('$(BIN)/', '').replace('$(SAMPLE)', 'data/sample') for l in recipe.splitlines()]
    assert all(c in (root/'data/README.md').read_text() for c in commands if c.startswith('hqgnet'))

def test_every_notebook_has_its_module_and_number(root):
    "The number orders the imports: a notebook's module imports only modules with lower numbers"
    stems = {p.stem.split('_', 1)[1]: p.stem for p in (root/'nbs').glob('*.ipynb') if re.match(r'\d', p.stem)}
    bad = []
    for mod in (p for p in (root/'hqgnet_nb').glob('*.py') if not p.stem.startswith('_')):
        if mod.stem not in stems: bad.append(f'{mod.stem}: no notebook'); continue
        for other in re.findall(r'^\s*from (?:\.|hqgnet_nb\.)(\w+) import', mod.read_text(), re.M):
            if stems[other] >= stems[mod.stem]: bad.append(f'{stems[mod.stem]} imports {stems[other]}')
    assert bad == []

def test_contributing_names_the_modules_that_import_fastai(root):
    "At their top, where it costs whoever imports them some seconds"
    def imports(body):
        for s in body:
            if isinstance(s, ast.Import): yield from (a.name for a in s.names)
            elif isinstance(s, ast.ImportFrom): yield s.module or ''
            elif not isinstance(s, (ast.FunctionDef, ast.ClassDef)): yield from imports(getattr(s, 'body', []))
    modules = {p.stem for p in (root/'hqgnet_nb').glob('*.py') if any(m.split('.')[0] == 'fastai' for m in imports(ast.parse(p.read_text()).body))}
    said = re.search(r'Only (`[^.]*?) import fastai', (root/'CONTRIBUTING.md').read_text())[1]
    assert {n.split('_', 1)[1] for n in re.findall(r'`(\w+)`', said)} == modules

def test_make_install_has_what_the_course_needs(cfg): assert names(cfg['course_requirements'].split()) <= names(cfg['dev_requirements'].split())

def test_methods_that_others_call_say_what_they_take():
    "A comment beside each parameter, and a docstring with its source"
    from fastcore.docments import docments
    from hqgnet_nb.data import FixedLoader
    from hqgnet_nb.document import Curve, Document
    from hqgnet_nb.learner import Game
    for f in (Document.frame, Document.write, Document.close, Curve.over, Curve.back, Curve.change, Game.spoil, Game.loss, Game.finite, Game.sound,
              Game.numbers, FixedLoader.to_detach):
        assert re.search(r'\[.*our reading\]$', f.__doc__ or ''), f
        assert all(said for name, said in docments(f).items() if name not in ('self', 'return')), f

def reading(path):
    "Minutes to read and do a notebook: words, lines of code that are shown, exercises, which each have a folded answer"
    minutes = 0
    for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] == 'markdown': minutes += len(source.split())/180 + 8*source.count('<summary>')
        elif not re.search(r'^#\|\s*(hide|echo)', source, re.M): minutes += sum(bool(l.strip()) and not l.startswith('#|') for l in source.splitlines())/20
    return minutes

def test_the_index_lists_every_notebook_and_says_how_long_it_takes(root):
    "To 5 minutes, so that an edit does not ask for another; the sums that it states are those of the list"
    text = '\n'.join(''.join(c['source']) for c in json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'markdown')
    rows = re.findall(r'^\| (\[\d.*) \|.*\| ([\d, ]+) \|$', text, re.M)
    said = {n: int(t) for names, times in rows for n, t in zip(re.findall(r'\((\w+)\.ipynb\)', names), times.split(','), strict=True)}
    assert sorted(said) == sorted(p.stem for p in (root/'nbs').glob('[0-9]*.ipynb'))
    counted = {n: reading(root/f'nbs/{n}.ipynb') for n in said}
    assert {n: (t, round(counted[n])) for n, t in said.items() if abs(t - counted[n]) > 5} == {}
    by_number, hours = {n.split('_')[0]: t for n, t in said.items()}, lambda s: float(s.replace('½', '.5'))
    paths = re.findall(r'^- \*[^*]+\* \(about ([\d½]+) hours\): (.*)$', text, re.M); assert len(paths) == 3
    paths = [(told, re.sub(r'\[(\w+)\]\(\1_\w+\.ipynb\)', r'\1', steps)) for told, steps in paths]               # each a link to the notebook of its number
    for told, steps in [*paths, (re.search(r'(\d+) hours in all', text)[1], ' → '.join(by_number))]:
        assert abs(hours(told) - sum(by_number[k] for k in steps.split(' → '))/60) <= .5, (told, steps)

def test_every_notebook_has_exercises_that_tell(root):
    "Two or three under one heading; each folded answer answers a cell that comes unsolved, and a hidden cell calls the same check"
    for path in sorted((root/'nbs').glob('[0-9]*.ipynb')):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']; text = [''.join(c['source']) for c in cells]; found = notebooks.exercises(cells)
        assert sum(t.count('\n## Exercises\n') + t.startswith('## Exercises\n') for t in text) == 1 and 2 <= len(found) <= 3, (path.name, len(found))
        assert 0 <= sum(t.count('<summary>Answer') for t in text) - len(found) <= 1, (path.name, 'one may be a question for the head alone')
        for i, answer in found:
            check = notebooks.checking(text[i].rstrip().splitlines()[-1]).func.id; assert answer, (path.name, cells[i]['id'], 'no answer to be found')
            assert any(f'{check}(' in t for t in text[i + 1:] if t.startswith('#| hide')), (path.name, check)
            told = [''.join(o.get('text', '')) + ''.join(o.get('data', {}).get('text/plain', '')) for o in cells[i]['outputs']]
            assert told and not told[-1].endswith('True'), (path.name, check, 'comes solved, or was never run')

def test_hidden_cells_are_folded(root):
    "They hold the answers of the exercises; in JupyterLab: View, Collapse Selected Code and Outputs. The imports at the top may be seen"
    for path in sorted((root/'nbs').glob('*.ipynb')):
        code = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
        open_ = [c['id'] for c in code[1:] if ''.join(c['source']).startswith('#| hide') and not c['metadata'].get('jupyter', {}).get('source_hidden')]
        assert not open_, (path.name, open_)

def test_makefile_wants_python_3_11(root, tmp_path):
    "Without a Python that is new enough there is one clear line, and no environment is left behind"
    fake = tmp_path/'bin'; fake.mkdir()
    for name in 'python3.13 python3.12 python3.11 python3'.split():
        (fake/name).write_text('#!/bin/sh\nexit 1\n'); (fake/name).chmod(0o755)
    env = dict(PATH=f'{fake}:/usr/bin:/bin', HOME=str(tmp_path))
    p = subprocess.run([shutil.which('make'), '-s', 'install', f'VENV={tmp_path}/venv'], cwd=root, env=env, capture_output=True, text=True)
    lines = [l for l in p.stderr.splitlines() if not re.match(r'\S*make(\[\d+\])?: \*\*\*', l)]
    assert p.returncode and len(lines) == 1 and 'Python 3.11' in lines[0], p.stderr
    assert not (tmp_path/'venv').exists()

def test_no_path_of_one_machine(root):
    "Text that we write names no folder of the machine it was written on"
    where = [*root.glob('*'), *root.glob('.ci/*'), *root.glob('.githooks/*'), *(p for d in ('nbs', 'hqgnet_nb', 'tests', 'data', 'bench', 'docs')
             for p in (root/d).rglob('*'))]
    own = [p for p in where if p.is_file() and p.suffix in ('', '.py', '.md', '.ini', '.toml', '.cff', '.in', '.ipynb', '.json')]
    assert [f'{p.name}: {m[0]}' for p in own for m in [gate.MACHINE.search(p.read_text(errors='ignore'))] if m] == []

def test_real_images_read(real_data):
    "Every kind of file in the folders of real images is read to a grey or colour array"
    core = importlib.import_module('hqgnet_nb.core')
    by_kind = {}
    for p in core.list_images(real_data): by_kind.setdefault((p.parent, p.suffix), p)
    assert len(by_kind) >= 4
    for p in by_kind.values():
        img = core.read_image(p)
        assert img.ndim in (2, 3) and min(img.shape[:2]) >= 64 and img.max() > img.min(), p.name

def test_the_gate_sees_what_fails_and_what_hangs(tmp_path):
    from copies import copies, libraries
    def do(root, name):
        print(f'{name} at work')
        if name == 'fails': raise ValueError('no good')
        if name == 'hangs': time.sleep(600)
        if name == 'leaves': sys.exit(3)
        if name == 'says': sys.exit('why')
        if name == 'killed': os.kill(os.getpid(), 9)
        (root/name).touch()
    res = {n: (code, out) for n, code, _, out in copies(do, tmp_path, ['hangs', 'well', 'fails', 'leaves', 'says', 'killed', 'last'], 2, 15)}
    assert {n: code for n, (code, _) in res.items()} == dict(well=0, fails=1, hangs=124, leaves=3, says=1, killed=-9, last=0)
    assert 'no good' in res['fails'][1] and 'Traceback' in res['fails'][1]
    assert 'stopped after 15 s' in res['hangs'][1] and 'why' in res['says'][1] and res['well'][1] == 'well at work\n'
    assert sorted(f.name for f in tmp_path.iterdir()) == ['last', 'well']
    found = libraries(Path(__file__).resolve().parent.parent)
    assert {'torch', 'numpy', 'fastai.data.core'} <= set(found) and not [m for m in found if 'hqgnet' in m]
