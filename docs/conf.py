"""Sphinx configuration; `make docs` gathers the pages with stage.py first. Nothing is executed and nothing is fetched."""
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='], interpolation=None)
parser.read(here.parent/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

project, author, release, language = cfg['title'], cfg['author'], cfg['version'], 'en'
project_copyright = cfg['copyright']
extensions = ['myst_nb', 'sphinx.ext.mathjax']
nb_execution_mode = 'off'
nb_render_markdown_format = 'myst'                      # outputs know tables and formulas too
nb_ipywidgets_js = {}                                  # these come from other servers
myst_enable_extensions = ['dollarmath', 'amsmath', 'attrs_block', 'colon_fence']
myst_heading_anchors, smartquotes = 4, False          # `--size` in a sentence stays as it is
nitpicky, nitpick_ignore_regex = True, [('py:class', '.*')]             # a link to nothing is a warning; types in signatures are no links
add_module_names = False
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = 'hide'

html_theme = 'sphinx_book_theme'
html_title = project
html_theme_options = dict(show_navbar_depth=1, navbar_persistent=[], use_download_button=False, use_fullscreen_button=False, use_issues_button=False,
                          use_repository_button=False, show_toc_level=2, pygments_light_style='a11y-high-contrast-light',
                          article_header_start=['toggle-primary-sidebar.html'])
html_context = dict(default_mode='auto')                # light or dark as the visitor's system is; without it the theme complains in the console
html_static_path, html_css_files = ['_static'], ['site.css']
html_use_index, html_domain_indices = False, False
html_copy_source, html_show_sourcelink, html_show_sphinx = False, False, False
mathjax_path = 'mathjax/tex-svg.js'                    # one file, no fonts
mathjax_options = dict(defer='defer')


def vendor(app, error):
    "MathJax from its package, the one file that the pages load"
    if error or app.builder.format != 'html': return
    source, target = Path(find_spec('sphinx-mathjax-offline').origin).parent/'static/mathjax/tex-svg.js', Path(app.outdir, '_static', mathjax_path)
    target.parent.mkdir(exist_ok=True); copyfile(source, target)

def setup(app): app.connect('build-finished', vendor)
