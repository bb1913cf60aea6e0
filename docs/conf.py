"""The site: README, pages, tutorials with the outputs that are committed, and a page a public name.

``make docs`` builds it from ``out/docs``, which mirrors the repository, so that a relative link of
README or of a notebook leads to the same file on the site.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.ext import autosummary

import cai
from cai import plot

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # the extensions of this folder

project = "control-as-inference"
author = "The authors of control-as-inference"
copyright = author
version = release = cai.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx.ext.viewcode",
    "code_links",
    "docstrings",
]
exclude_patterns = ["README.md"]  # index.md includes it

# Pages and notebooks

highlight_language = "text"  # of indented equations
smartquotes_action = "D"  # dashes alone: s' is a state
copybutton_selector = ":not(.highlight-none, .highlight-text) > div.highlight pre"
copybutton_exclude = ".linenos, .gp, .go"

nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # no widget is committed, and none is fetched
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The reference

autosummary_generate = True
autosummary_imported_members = True
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.", "eqs.")  # else a summary ends there
# Where letters differ in case alone, two pages would be one file on some systems.
autosummary_filename_map = {
    f"{page.__name__}.{name}": f"{page.__name__}.{name}_class"
    for page in (cai.models, cai.inference)
    for name in page.__all__
    if name != name.lower() and name.lower() in page.__all__
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # the signature has them
napoleon_use_ivar = True
napoleon_use_rtype = False
for field in PyObject.doc_field_types:
    if field.name == "variable":
        field.label = "Attributes"  # as docstrings call them
nitpicky = True  # a reference that leads nowhere is a warning, but for
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|gymnasium|matplotlib|numpy|os|pyro|torch)\..+"),
    ("py:.*", r"(Tensor|TorchDistribution)"),
    ("py:.*", r"cai\.(\w+\.){2,}\w+"),  # modules behind the front pages
]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
templates_path = ["_templates"]

if os.environ.get("CAI_DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "pyro": ("https://docs.pyro.ai/en/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }

# How it looks: nothing is fetched from a network, so that the site opens from a folder.

html_theme = "furo"
html_title = "control as inference"
html_static_path = ["_static", "../out/static"]
html_css_files = ["site.css"]
html_extra_path = ["../out/extra"]  # the explorer, which collect() writes there
html_show_sourcelink = False
html_copy_source = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}


def collect(app: Sphinx, _: object) -> None:
    """Lays out the sources of the site as they lie in the repository, with its pages at the top."""
    target = Path(app.srcdir)
    for path in [*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "CITATION.cff"]:
        text = path.read_text(encoding="utf-8").replace("](docs/", "](")
        (target / path.name).write_text(text, encoding="utf-8")
    without = shutil.ignore_patterns("_static", "__pycache__", "*.py")
    shutil.copytree(HERE, target, ignore=without, dirs_exist_ok=True)
    shutil.copytree(ROOT / "tutorials", target / "tutorials", dirs_exist_ok=True)
    measured = ROOT / "out" / "speed.txt"
    unknown = "Not measured on this machine: make bench, then make docs.\n"
    text = measured.read_text(encoding="utf-8") if measured.is_file() else unknown
    (target / "speed.txt").write_text(text, encoding="utf-8")
    extra = ROOT / "out" / "extra"
    extra.mkdir(parents=True, exist_ok=True)
    plot.explore().save(extra / "explore.html")


def fold(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Of the list at the side only the topic of this page is unfolded.

    All names on each of the pages would be most of the site, and most of the time to build it.
    """
    if "toctree" in context:
        whole = context["toctree"]
        context["toctree"] = lambda **options: whole(**options | {"collapse": True})


def setup(app: Sphinx) -> None:
    """Collects the sources before Sphinx looks for them, and folds before the theme draws."""
    app.connect("config-inited", collect)
    app.connect("html-page-context", fold, priority=400)
