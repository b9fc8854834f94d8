"""What the tests share."""
import os
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='session')
def root(): return ROOT

@pytest.fixture(scope='session')
def real_data():
    "The folder of real photographs that HQGNET_DATA names; skips the test where there is none"
    path = Path(os.environ.get('HQGNET_DATA') or '/nowhere')
    if not path.is_dir(): pytest.skip('no real images here: HQGNET_DATA does not name a folder')
    return path
