"""Sphinx configuration. Builds offline: the inventories it links through lie beside it."""

import numpyro_genprior

project = "numpyro-genprior"
author = "The numpyro-genprior developers"
release = numpyro_genprior.__version__
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "myst_parser",
    "numpydoc",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "inventories"]
nitpicky = True
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

copybutton_exclude = ".linenos, .gp, .go"

# Each inventory is a text file of a few dozen names, those that the documents refer to. A name that
# is missing there is a warning, and so an error: add a line.
intersphinx_mapping = {
    name: (url, f"inventories/{name}.txt")
    for name, url in {
        "arviz": "https://python.arviz.org/en/v0.23.4/",
        "equinox": "https://docs.kidger.site/equinox/",
        "flax": "https://flax.readthedocs.io/en/stable/",
        "flowjax": "https://danielward27.github.io/flowjax/",
        "haiku": "https://dm-haiku.readthedocs.io/en/latest/",
        "jax": "https://docs.jax.dev/en/latest/",
        "numpy": "https://numpy.org/doc/stable/",
        "numpyro": "https://num.pyro.ai/en/stable/",
        "optax": "https://optax.readthedocs.io/en/latest/",
        "python": "https://docs.python.org/3/",
        "xarray": "https://docs.xarray.dev/en/stable/",
    }.items()
}
nitpick_ignore = []

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_theme_options = {"navigation_with_keys": True}
