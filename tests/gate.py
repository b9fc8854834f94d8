"""The gate behind `make test`: eight stages, each check counted. The last line is `N passed, N failed`, with skipped ones if any.

python tests/gate.py [--only STAGE[,STAGE]] [--keep]      stages: clean export ruff imports notebooks site pytest wheel
"""
import argparse, contextlib, json, os, re, shutil, signal, subprocess, sys, tempfile, threading, time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tests'))
import notebooks

BIN = Path(sys.executable).parent           # not resolved: the environment's own folder
NBS = sorted((ROOT/'nbs').glob('*.ipynb'))
# A notebook above the first is named, one above the second has hung: machines differ threefold, so no time in between fails.
WARN, HUNG = 60, 1200                       # seconds
JOBS = 2                                    # notebooks, or imports, at a time
# these come first, so that none is left alone in the end
LONG = '15d_compare', '10b_train', '12d_contest', '10_learner', '09b_restore', '14_bilevel', '24_gpu_and_scale', '09_losses', '21_results', '23_downstream'
# what must not be imported with these
LEAN = {**{f'hqgnet_nb.{m}': ['fastai'] for m in ('enhance', 'manifest', 'films', 'batch')}, 'hqgnet_nb.cli': ['fastai', 'torch']}
# a path that only exists on the machine where the notebook was run
MACHINE = re.compile(r'(?<![\w.~/:])/(?:home|root|Users|work|tmp|opt|srv|mnt|var|private)/[\w.-]+|\b[A-Z]:\\\\?Users')


class Tally:
    "Counts checks and prints a line for each; used from several threads"
    def __init__(self): self.n, self.failed, self.lock = {'PASS': 0, 'FAIL': 0, 'SKIP': 0}, [], threading.Lock()
    def __call__(self, state, name, seconds=0., why=''):
        with self.lock:
            self.n[state] += 1
            if state == 'FAIL': self.failed.append(name)
            print(f'{state} {name} ({seconds:.1f} s)', flush=True)
            if why: print('\n'.join('     ' + l for l in why.strip().splitlines()[-40:]), flush=True)
    def check(self, name, problems, seconds=0.): self('FAIL' if problems else 'PASS', name, seconds, '\n'.join(problems))
    def line(self):
        return f"{self.n['PASS']} passed, {self.n['FAIL']} failed" + (f", {self.n['SKIP']} skipped" if self.n['SKIP'] else '')

tally, running, stopping = Tally(), set(), threading.Event()

def run(cmd, cwd=ROOT, limit=900, **env):
    "(return code, output, seconds) of a command in a process group of its own, ended whole at its limit (return code 124)"
    full = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONUNBUFFERED': '1', **env}
    for k in 'PYTHONPATH', 'IN_TEST': full.pop(k, None)
    if stopping.is_set(): raise RuntimeError('stopped')
    t = time.time()
    p = subprocess.Popen([str(c) for c in cmd], cwd=cwd, env=full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, errors='replace', start_new_session=True)
    running.add(p)
    try: out, _ = p.communicate(timeout=limit); rc = p.returncode
    except subprocess.TimeoutExpired: kill(p); out, _ = p.communicate(); rc, out = 124, out + f'\nstopped after {limit} s'
    finally: running.discard(p)
    return rc, out, time.time() - t

def kill(p):
    with contextlib.suppress(ProcessLookupError, PermissionError): os.killpg(p.pid, signal.SIGKILL)

def stop(sig, frame):
    "On Ctrl-C and the like: end what runs, in its own process groups, and go"
    stopping.set()
    for p in list(running): kill(p)
    sys.exit(128 + sig)

def copy_repo(to):
    "A copy of what belongs to the project: no environment, no history, no build or run"
    leave = shutil.ignore_patterns('.venv*', '.git', 'build', 'dist', '*.egg-info', '__pycache__', '.ipynb_checkpoints', '.*_cache',
                                   '_docs', '_static', 'demo_out', 'runs')            # the site may be in the making
    shutil.copytree(ROOT, to, ignore=leave); return Path(to)

def texts(cell):
    "The text of a notebook cell: its source and what its outputs print, without pictures"
    yield ''.join(cell['source'])
    for o in cell.get('outputs', []):
        yield ''.join(o.get('text', ''))
        for kind, v in o.get('data', {}).items():
            if kind.startswith('text/'): yield re.sub(r'data:image/[^"\']*', '', ''.join(v))


# the stages -----------------------------------------------------------------------------------------------------------------

def clean(tmp):
    "Notebooks are clean: nbdev_clean would change none; ids, format, size, no error output, no path of one machine"
    copy = copy_repo(tmp/'clean')
    rc, out, s = run([BIN/'nbdev_clean'], copy)
    if rc: tally('FAIL', 'clean: nbdev_clean', s, out)
    for nb in NBS:
        raw = nb.read_bytes(); d = json.loads(raw); bad = []
        if raw != (copy/'nbs'/nb.name).read_bytes(): bad.append("nbdev_clean changes it: run 'make clean'")
        if (d['nbformat'], d['nbformat_minor']) != (4, 5): bad.append(f"nbformat is {d['nbformat']}.{d['nbformat_minor']}, not 4.5")
        ids = [c.get('id') for c in d['cells']]
        if None in ids or len(set(ids)) < len(ids): bad.append('cells without an id, or with the same one')
        number = re.match(r'\d+', nb.stem); limit = 1000 if number and int(number[0]) >= 20 else 200
        if len(raw) > limit * 1000: bad.append(f'{len(raw)/1000:.0f} KB, more than {limit} KB')
        for i, c in enumerate(d['cells']):
            if any(o['output_type'] == 'error' for o in c.get('outputs', [])): bad.append(f'cell {i} holds an error output')
            for m in {m[0] for t in texts(c) for m in MACHINE.finditer(t)}: bad.append(f'cell {i} holds a path of one machine: {m}')
        tally.check(f'clean: {nb.name}', bad)

def export(tmp):
    "Modules and README equal what the notebooks give"
    copy = copy_repo(tmp/'export'); lib = copy/'hqgnet_nb'
    for f in lib.rglob('*.py'):
        if f.name != '__init__.py': f.unlink()                     # so that a module without a notebook shows
    rc, out, s = run([BIN/'nbdev_export'], copy)
    if rc: return tally('FAIL', 'export: nbdev_export', s, out)
    made, there = ({f.relative_to(d).as_posix(): f.read_bytes() for f in d.rglob('*.py')} for d in (lib, ROOT/'hqgnet_nb'))
    for name in sorted(made.keys() | there.keys()):
        bad = ([f"no notebook exports hqgnet_nb/{name}"] if name not in made else
               [f"hqgnet_nb/{name} differs from its notebook: run 'make export'"] if made[name] != there.get(name) else [])
        tally.check(f'export: {name}', bad)
    try: want = notebooks.readme(ROOT)
    except Exception as e: return tally('FAIL', 'export: README.md', 0, f'{type(e).__name__}: {e}')
    tally.check('export: README.md', [f"{n} differs from nbs/index.ipynb: run 'make readme'" for n, b in want.items()
                                      if not (ROOT/n).exists() or (ROOT/n).read_bytes() != b])

def ruff(tmp):
    "Style of notebooks, modules and tests"
    for d in 'nbs', 'hqgnet_nb', 'tests', 'bench', 'docs', 'setup.py':
        if not (ROOT/d).exists(): continue
        rc, out, s = run([BIN/'ruff', 'check', '--no-cache', '--output-format=concise', d])
        tally('FAIL' if rc else 'PASS', f'ruff: {d}', s, out if rc else '')

def in_copies(what, names, root, cwd):
    "Results of tests/copies.py as they come; its own end is a failure where it leaves one out"
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONUNBUFFERED': '1', 'CUDA_VISIBLE_DEVICES': '', 'MPLBACKEND': 'Agg'}
    for k in 'PYTHONPATH', 'IN_TEST': env.pop(k, None)
    env['TMPDIR'] = str(cwd/'scratch'); (cwd/'scratch').mkdir(exist_ok=True)                # a copy ends without tidying up
    if stopping.is_set(): raise RuntimeError('stopped')
    left = set(names)
    with open(cwd/f'{what}.log', 'w+') as err:
        p = subprocess.Popen([sys.executable, ROOT/'tests/copies.py', root, what, str(JOBS), str(HUNG), *names], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True)
        running.add(p)
        try:
            for line in p.stdout: r = json.loads(line); left.discard(r['name']); yield r
            rc = p.wait()
        finally:
            kill(p); p.wait(); running.discard(p)
        if rc or left: err.seek(0); yield dict(name=', '.join(sorted(left)) or what, code=rc or 1, seconds=0., out=err.read())

def imports(tmp):
    "Every module imports alone, from another folder, in a process of its own; the light ones stay light"
    def light(name):
        code = (f'import sys, {name} as m\nassert m.__file__.startswith({str(ROOT)!r}), f"imported from {{m.__file__}}"\n'
                f'heavy = [k for k in {LEAN[name]} if k in sys.modules]\nassert not heavy, f"imports {{heavy}}"')
        rc, out, s = run([sys.executable, '-c', code], tmp, limit=HUNG)
        tally('FAIL' if rc else 'PASS', f"import: {name} without {' and '.join(LEAN[name])}", s, out if rc else '')
    with ThreadPoolExecutor(JOBS) as ex: list(ex.map(light, LEAN))
    for r in in_copies('imports', sorted(f'hqgnet_nb.{f.stem}' for f in (ROOT/'hqgnet_nb').glob('*.py') if f.stem != '__init__'), ROOT, tmp):
        tally('FAIL' if r['code'] else 'PASS', f"import: {r['name']}", r['seconds'], r['out'] if r['code'] else '')

def run_notebooks(tmp):
    "Every notebook runs on a CPU, in a copy, without the cells flagged slow"
    copy, flagged = copy_repo(tmp/'notebooks'), []; before = {p for p in (copy/'nbs').rglob('*')}
    for r in in_copies('notebooks', sorted((nb.stem for nb in NBS), key=lambda n: n not in LONG), copy, tmp):
        ok = not r['code'] and 'Success.' in r['out']
        if r['seconds'] > WARN: flagged.append(f"{r['name']} {r['seconds']:.0f} s")
        tally('PASS' if ok else 'FAIL', f"notebook: {r['name']}.ipynb", r['seconds'], '' if ok else r['out'])
    if flagged: print(f'     above {WARN} s: {", ".join(flagged)}', flush=True)
    left = sorted(p.relative_to(copy).as_posix() for p in set((copy/'nbs').rglob('*')) - before
                  if not {'__pycache__', '.ipynb_checkpoints'} & set(p.parts) and p.name != '.last_checked')
    tally.check('notebook: none leaves files behind', [', '.join(left[:8])] if left else [])

def build_site():
    "(return code, output, seconds) of `make docs`, which writes _docs; None where there is no make. Runs beside other stages"
    make = shutil.which('make')
    return run([make, 'docs', f'VENV={BIN.parent}']) if make else None

def site(tmp, built):
    "The site builds, without a warning, into _docs, where its tests find it"
    if (found := built.result()) is None: return tally('SKIP', 'site: make docs', 0, 'no make here')
    rc, out, s = found; tally('FAIL' if rc else 'PASS', 'site: make docs', s, out if rc else '')

def pytests(tmp):
    "The tests in tests/, a file at a time in each of two processes"
    xml = tmp/'junit.xml'
    cmd = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-n', JOBS, '--dist', 'loadfile', f'--junitxml={xml}', 'tests']
    rc, out, s = run(cmd, limit=4800, MPLBACKEND='Agg')
    if rc not in (0, 1) or not xml.exists(): tally('FAIL', 'pytest', s, out)
    for case in ET.parse(xml).iter('testcase') if xml.exists() else []:
        kids = {k.tag: k for k in case}; bad = [kids[k] for k in ('failure', 'error') if k in kids]
        state = 'FAIL' if bad else 'SKIP' if 'skipped' in kids else 'PASS'
        why = (bad[0].text or bad[0].get('message', '')) if bad else kids['skipped'].get('message', '') if 'skipped' in kids else ''
        tally(state, f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}", float(case.get('time', 0)), why)

def build_wheel(tmp, keep):
    "(python of a fresh environment that holds the wheel and the newest fastai, or None; words; seconds). Runs beside other stages"
    cfg = ConfigParser(delimiters=['='], interpolation=None); cfg.read(ROOT/'settings.ini', encoding='utf-8')
    # torch and torchvision as in the developer set; fastai and fastcore are left to float
    pins = [r for r in cfg['DEFAULT']['dev_requirements'].split() if re.match(r'torch(vision)?==', r)]
    env, t = (ROOT/'.venv-wheel' if keep else tmp/'env'), time.time(); py = env/'bin/python'
    steps = [[sys.executable, '-m', 'pip', 'wheel', '-qq', '--no-deps', '-w', tmp/'dist', copy_repo(tmp/'build')]]
    if not py.exists(): steps.append([sys.executable, '-m', 'venv', env])
    for cmd in steps:
        rc, out, _ = run(cmd, tmp)
        if rc: return None, out, time.time() - t
    wheel = next((tmp/'dist').glob('hqgnet_nb-*.whl'))
    pip = [py, '-m', 'pip', 'install', '-qq', '--no-compile']
    rc, out, _ = run([*pip, '--upgrade', wheel, *pins, 'fastai', 'fastcore'], tmp, 1200)
    if not rc and keep: rc, out, _ = run([*pip, '--no-deps', '--force-reinstall', wheel], tmp)
    return (None if rc else py), out, time.time() - t

def wheel(tmp, built):
    "The wheel, in an environment with the newest fastai and fastcore, trains and enhances through the command line"
    py, out, s = built.result()
    tally('PASS' if py else 'FAIL', 'wheel: builds and installs with the newest fastai', s, '' if py else out)
    if py is None: return
    shutil.copy(ROOT/'tests/wheel_smoke.py', tmp/'wheel_smoke.py'); (tmp/'empty').mkdir()
    rc, out, s = run([py, tmp/'wheel_smoke.py'], tmp/'empty', 600, CUDA_VISIBLE_DEVICES='', MPLBACKEND='Agg')
    found = re.findall(r'^(PASS|FAIL) (.+) \(([\d.]+) s\)\n((?:     .*\n)*)', out, re.M)
    for state, name, sec, why in found: tally(state, f'wheel: {name}', float(sec), why)
    if not found or rc and all(f[0] == 'PASS' for f in found): tally('FAIL', 'wheel: the smoke test ran to its end', s, out)

STAGES = dict(clean=clean, export=export, ruff=ruff, imports=imports, notebooks=run_notebooks, site=site, pytest=pytests, wheel=wheel)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--only', default=','.join(STAGES), help='stages to run, with commas between')
    ap.add_argument('--keep', action='store_true', help='keep the second environment in .venv-wheel for the next time')
    a = ap.parse_args(); only = a.only.split(',')
    if set(only) - set(STAGES): ap.error(f"no such stage: {', '.join(sorted(set(only) - set(STAGES)))}")
    for sig in signal.SIGINT, signal.SIGTERM: signal.signal(sig, stop)
    t = time.time()
    with tempfile.TemporaryDirectory(prefix='hqgnet_gate_', ignore_cleanup_errors=True) as tmp, ThreadPoolExecutor(2) as back:
        tmp = Path(tmp)
        begun = dict(site=build_site, wheel=lambda: build_wheel(tmp, a.keep))        # much disk and network: beside the rest
        begun = {name: back.submit(f) for name, f in begun.items() if name in only}
        for name, stage in STAGES.items():
            if name not in only: continue
            try: stage(tmp, begun[name]) if name in begun else stage(tmp)
            except Exception as e: tally('FAIL', name, 0, f'{type(e).__name__}: {e}')
    for name in tally.failed: print(f'failed: {name}')              # once more, where somebody looks first
    print(f'gate: {time.time() - t:.0f} s')
    print(tally.line(), flush=True)
    return bool(tally.n['FAIL']) or not tally.n['PASS']

if __name__ == '__main__': sys.exit(main())
