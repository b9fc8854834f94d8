"""Package metadata; all of it comes from settings.ini."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

STATUS = {'1': '1 - Planning', '2': '2 - Pre-Alpha', '3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='], interpolation=None)
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
EXTRAS = [key.removesuffix('_requirements') for key in cfg if key.endswith('_requirements')]
readme = here/'README.md'

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '', long_description_content_type='text/markdown',
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0', license_files=['LICENSE'],
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require={name: cfg[f'{name}_requirements'].split() for name in EXTRAS},   # split on spaces: no spaces inside a requirement
    entry_points={'console_scripts': cfg['console_scripts'].split()},
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={cfg['lib_path']: ['weights/*', 'weights/*/*', 'static/*']}, include_package_data=False, zip_safe=False,
    classifiers=[f'Development Status :: {STATUS[cfg["status"]]}', f'Intended Audience :: {cfg["audience"]}',
                 'Intended Audience :: Science/Research', f'Natural Language :: {cfg["language"]}',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Image Processing'],
)
