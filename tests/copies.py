"""Run imports or notebooks, each in a process of its own that begins as a copy of one which has other people's libraries loaded: these take most of the time.

What one of ours uses and forgets to import is not seen here if another of them imports it; those that are to stay light are imported bare by the gate.

python tests/copies.py ROOT imports|notebooks JOBS SECONDS NAME...    a line of JSON for each as it ends: name, code (0 is well), seconds, out
"""
import ast, contextlib, importlib, json, os, sys, tempfile, time, traceback
from pathlib import Path
import psutil                               # JupyterLab's kernel needs it, so it is there

def libraries(root):
    "The modules of others that ours import when they are imported"
    found = set()
    for path in sorted((Path(root)/'hqgnet_nb').glob('*.py')):
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, ast.Import): found |= {a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level: found.add(node.module)
    return sorted(m for m in found if m.split('.')[0] != 'hqgnet_nb')

def take(root, name):
    "Import a module as the environment finds it, which is to be in `root`"
    m = importlib.import_module(name); assert m.__file__.startswith(str(root)), f'imported from {m.__file__}'

def test(root, name):
    "Run a notebook as nbdev does; with `IN_TEST` in the environment, as it is there"
    os.chdir(root)
    from nbdev.test import nbdev_test
    nbdev_test(path=f'nbs/{name}.ipynb', n_workers=0)

def end(pid):
    "Kill a process and all that it has started; they stay in our group, for who ends us ends them"
    try: own = psutil.Process(pid); below = own.children(recursive=True)
    except psutil.NoSuchProcess: return
    for p in own, *below:
        with contextlib.suppress(psutil.NoSuchProcess): p.kill()

def copies(do, root, names, jobs, seconds):
    "Do it for each name, so many at a time; yields (name, exit code, seconds, what it printed). 124: stopped, for it took longer than `seconds`"
    waiting, at_work = list(names), {}
    while waiting or at_work:
        while waiting and len(at_work) < jobs:
            name, out = waiting.pop(0), tempfile.TemporaryFile()
            if not (pid := os.fork()):
                code = 1
                try:
                    for fd, to in (0, os.open(os.devnull, os.O_RDONLY)), (1, out.fileno()), (2, out.fileno()): os.dup2(to, fd)
                    sys.stdout = sys.stderr = open(1, 'w', buffering=1, errors='replace', closefd=False); do(root, name); code = 0
                except SystemExit as e:
                    if isinstance(e.code, str): print(e.code)
                    code = 0 if e.code is None else e.code if isinstance(e.code, int) and 0 <= e.code < 256 else 1
                except BaseException: traceback.print_exc()
                with contextlib.suppress(Exception): sys.stdout.flush()
                os._exit(code)
            at_work[pid] = name, out, time.monotonic()
        time.sleep(.05)
        for pid, (name, out, since) in list(at_work.items()):
            took = time.monotonic() - since
            if hung := took > seconds: end(pid)
            ended, status = os.waitpid(pid, 0 if hung else os.WNOHANG)
            if not ended: continue
            del at_work[pid]; out.seek(0); text = out.read().decode(errors='replace'); out.close()
            yield name, 124 if hung else os.waitstatus_to_exitcode(status), took, text + f'\nstopped after {seconds:g} s'*hung

if __name__ == '__main__':
    root, what, jobs, seconds, *names = sys.argv[1:]; root = Path(root).resolve()
    for m in libraries(root) + ['nbdev.test', 'matplotlib.pyplot']: importlib.import_module(m)
    assert not any(m.split('.')[0] == 'hqgnet_nb' for m in sys.modules), 'ours are not loaded'
    for name, code, took, text in copies(dict(imports=take, notebooks=test)[what], root, names, int(jobs), float(seconds)):
        print(json.dumps(dict(name=name, code=code, seconds=round(took, 1), out=text[-20000:])), flush=True)
