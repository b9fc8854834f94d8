"""A thousand bad and odd files (a part of them in the gate; all by `make stress`): the right pixels or one line, and never a crash, a hang or half a file."""
import os
import numpy as np, pytest
import fuzz
from conftest import noted

N = 1000 if os.environ.get('HQGNET_STRESS') else 7*len(fuzz.FAMILIES)//2

@pytest.fixture(scope='module')
def results(): return fuzz.fuzz(N, seed=0)

def test_every_case_is_read_rightly_or_refused_in_one_line(results):
    wrong = [m for m in results if m['bad']]
    assert not wrong, '\n'.join(f"case {m['done']} ({m['family']}, {m['file']!r}): {m['bad']}" for m in wrong)
    assert sorted(m['done'] for m in results) == list(range(N)) and {m['family'] for m in results} == set(fuzz.FAMILIES)
    read = sum(m['outcome'].startswith('read') for m in results); assert N/3 < read < 3*N/4, 'of both there are enough'
    noted(f'Odd and bad files: {N} cases, {read} read rightly, {N - read} refused in a line; '
          f'longest {max(m["seconds"] for m in results):.1f} s, most memory {max(m["mib"] for m in results)} MiB')

def test_nothing_is_said_beside_the_error(results):
    "No library's own words on the screen, which would not name the file"
    noise = [m for m in results if '[' in m['outcome'].partition('refused')[0] or m['outcome'].endswith(']')]
    assert not [m for m in noise if 'tifffile' in m['outcome'] or 'Traceback' in m['outcome']], noise
    assert not [m for m in noise if m['family'].startswith(('dicom', 'nifti', 'film'))], 'of medical files nothing at all, it might be a name'

def test_a_case_is_a_function_of_seed_and_number():
    for k in range(len(fuzz.FAMILIES)):
        (a, x), (b, y) = fuzz.case(0, k), fuzz.case(0, k); assert a == b and x.name == y.name and (callable(x.data) or x.data == y.data)
    assert len({c.data for _, c in (fuzz.case(0, k) for k in range(2*len(fuzz.FAMILIES))) if not callable(c.data)}) > 1.5*len(fuzz.FAMILIES)

@pytest.mark.parametrize('how', ['eight bits', 'two lines', 'crash', 'hang', 'die', 'eat'])
def test_the_judge_sees_what_is_wrong(how, monkeypatch):
    "Ways of failing, put into the library"
    import signal, time
    from hqgnet_nb import core
    true = core.read_image
    def wrong(path):
        if 'neighbour' in str(path): return true(path)
        if how == 'two lines': raise core.ImageError('no') from ValueError('\n')
        if how == 'crash': raise KeyError('Orientation')
        if how == 'hang': time.sleep(60)
        if how == 'die': os.kill(os.getpid(), signal.SIGKILL)
        if how == 'eat': return np.zeros((500, 2**20), np.uint8) + np.uint8(1)
        return (true(path) >> 8).astype(np.uint8)
    monkeypatch.setattr(core, 'read_image', wrong)
    k = next(k for k in range(0, 9999, len(fuzz.FAMILIES)) if fuzz.case(0, k)[1].want.dtype == np.uint16)       # of the family png_odd
    m, = fuzz.fuzz(1, first=k, seconds=1 if how == 'hang' else 20)
    says = {'eight bits': 'gave uint8', 'two lines': 'does not name the file', 'crash': 'KeyError', 'hang': 'took over',
            'die': 'the process died', 'eat': 'MiB of memory'}[how]
    assert any(says in b for b in m['bad']), m
