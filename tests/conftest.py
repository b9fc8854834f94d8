"""What the tests share."""
import functools, os, shutil
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent

def noted(what):
    "Print what a test has found; `make stress` keeps it, in the file that HQGNET_STRESS names"
    print(f'\n{what}', flush=True)
    if path := os.environ.get('HQGNET_STRESS'):
        with open(path, 'a', encoding='utf-8') as f: f.write(f'- {what}\n')

@functools.cache
def chromium():
    "The path of a Chromium: the one that HQGNET_CHROMIUM names, the system's, or playwright's own; None where there is none"
    names = 'chromium', 'chromium-browser', 'google-chrome'
    if found := os.environ.get('HQGNET_CHROMIUM') or next(filter(None, map(shutil.which, names)), None): return found
    try: from playwright.sync_api import sync_playwright
    except ImportError: return None
    with sync_playwright() as p: return p.chromium.executable_path if Path(p.chromium.executable_path).exists() else None

NO_CHROMIUM = 'no Chromium here; `playwright install chromium` gets one, HQGNET_CHROMIUM names one'

@pytest.fixture(scope='session')
def root(): return ROOT

@pytest.fixture(scope='session')
def real_data():
    "The folder of real photographs that HQGNET_DATA names; skips the test where there is none"
    path = Path(os.environ.get('HQGNET_DATA') or '/nowhere')
    if not path.is_dir(): pytest.skip('no real images here: HQGNET_DATA does not name a folder')
    return path
