"""How Sphinx builds the reference: `python -m sphinx -W -n colab/reference build/reference`."""

import importlib.metadata
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

project = "deform_jax"
author = "The deform_jax developers"
release = version = importlib.metadata.version("deform_jax")
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "rendering"]
nitpicky = True
templates_path = []
exclude_patterns = ["README.md"]

autodoc_default_options = {"members": True, "special-members": "__call__", "member-order": "bysource"}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2

add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_title = "deform_jax"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["reference.css"]
html_copy_source = html_show_sourcelink = False
smartquotes_action = "D"  # dashes alone
