"""How Sphinx makes pages of this folder: `make docs`."""

from importlib import metadata

project = "cube-kernels"
author = "the cube-kernels maintainers"
release = metadata.version("cube-kernels")
html_title = f"cube-kernels {release}"
html_theme = "furo"
html_show_copyright = False

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["conf.py"]
myst_heading_anchors = 3

# Tutorials are scripts, run anew by every build.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
napoleon_use_param = False  # "lattice, rule:" is one line for both

# References into our own packages must lead somewhere where they are written as such; names of types need not.
nitpicky = True
nitpick_ignore_regex = [("py:class|py:obj|py:data|py:exc|py:attr|py:mod|py:func|py:meth", ".*")]
