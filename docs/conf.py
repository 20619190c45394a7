"""Sphinx configuration. Builds offline: the inventories it links through lie beside it."""

import inspect

from sphinx.ext import intersphinx
from sphinx.util.inspect import stringify_signature

import numpyro_genprior

project = "numpyro-genprior"
author = "The numpyro-genprior developers"
release = numpyro_genprior.__version__
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "numpydoc",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "inventories", "_static/mathjax"]
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

# MathJax is part of the site: formulas render from a folder, without a network.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}  # the menu would load further files

# Each script in figures/ draws one picture of a result, when the site is built.
plot_basedir = "figures"
plot_formats = [("png", 160)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False

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
        "jaxtyping": "https://docs.kidger.site/jaxtyping/",
        "matplotlib": "https://matplotlib.org/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "numpyro": "https://num.pyro.ai/en/stable/",
        "optax": "https://optax.readthedocs.io/en/latest/",
        "optimistix": "https://docs.kidger.site/optimistix/",
        "python": "https://docs.python.org/3/",
        "xarray": "https://docs.xarray.dev/en/stable/",
    }.items()
}
# Names as signatures write them, or as Python finds them, and the names under which they are
# documented, here or in an inventory. An alias is described by the type that it stands for.
DESCRIBED_AT = {
    "AbstractDistribution": "flowjax.distributions.AbstractDistribution",
    "Any": "typing.Any",
    "Array": "jax.Array",
    "ArrayLike": "jax.typing.ArrayLike",
    "Augment": "collections.abc.Callable",
    "AutoGuide": "numpyro.infer.autoguide.AutoGuide",
    "Axes": "matplotlib.axes.Axes",
    "Bool": "jaxtyping.Bool",
    "Callable": "collections.abc.Callable",
    "Coords": "collections.abc.Mapping",
    "Distribution": "numpyro.distributions.distribution.Distribution",
    "EventDims": "collections.abc.Mapping",
    "Events": "jax.Array",
    "Figure": "matplotlib.figure.Figure",
    "Float": "jaxtyping.Float",
    "Flow": "typing.TypeVar",
    "Functional": "collections.abc.Callable",
    "Int": "jaxtyping.Int",
    "Iterator": "collections.abc.Iterator",
    "Literal": "typing.Literal",
    "MCMC": "numpyro.infer.mcmc.MCMC",
    "MCMCKernel": "numpyro.infer.mcmc.MCMCKernel",
    "Mapping": "collections.abc.Mapping",
    "Method": "numpyro_genprior.infer.MCMCMethod",
    "Model": "collections.abc.Callable",
    "ModelSites": "numpyro_genprior.sites.model_reader.ModelSites",
    "Noise": "typing.Literal",
    "NumPyroOptimizer": "numpyro.optim._NumPyroOptim",
    "P": "typing.TypeVar",
    "PRNGKeyArray": "jax.Array",
    "Params": "collections.abc.Mapping",
    "Parameters": "collections.abc.Callable",
    "PyTree": "jaxtyping.PyTree",
    "RankTest": "numpyro_genprior.diagnostics.calibration.uniformity_test.RankTest",
    "Role": "typing.Literal",
    "ScalarLike": "jaxtyping.ScalarLike",
    "Sequence": "collections.abc.Sequence",
    "Shaped": "jaxtyping.Shaped",
    "Solver": "optimistix.AbstractMinimiser",
    "Trace": "collections.abc.Mapping",
    "Transform": "numpyro.distributions.transforms.Transform",
    "Transformed": "haiku.Transformed",
    "TransformedWithState": "haiku.TransformedWithState",
    "WhitenTangent": "collections.abc.Callable",
    "_T": "typing.TypeVar",
    "constraints.Constraint": "numpyro.distributions.constraints.Constraint",
    "dist.Distribution": "numpyro.distributions.distribution.Distribution",
    "eqx.AbstractVar": "typing.Any",
    "jax.jaxlib._jax.Array": "jax.Array",
    "jaxlib._jax.Array": "jax.Array",
    "linen.Module": "flax.linen.Module",
    "minimise.Solver": "optimistix.AbstractMinimiser",
    "ndarray": "numpy.ndarray",
    "nnx.Module": "flax.nnx.Module",
    "np.dtype": "numpy.dtype",
    "np.ndarray": "numpy.ndarray",
    "optax.ScalarOrSchedule": "optax.Schedule",
    "optax._src.base.GradientTransformation": "optax.GradientTransformation",
}

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}


def follow(app, env, node, contnode):
    """Resolve a reference under the name by which it is documented."""
    described = DESCRIBED_AT.get(node.get("reftarget"))
    if described is None:
        return None
    node["reftarget"] = described
    if described.startswith(f"{numpyro_genprior.__name__}."):
        where, python = node["refdoc"], env.get_domain("py")
        return python.resolve_xref(env, where, app.builder, "class", described, node, contnode)
    return intersphinx.missing_reference(app, env, node, contnode)


class _Factory:
    """Stands for a default that a dataclass makes for each object."""

    def __repr__(self):
        return "..."


_FACTORY = _Factory()


def as_written(app, what, name, thing, options, signature, return_annotation):
    """The signature with its annotations as the source writes them, not as Python expands them."""
    if what not in {"class", "function", "method"} or not signature:
        return None
    try:
        written = inspect.signature(thing)
    except (TypeError, ValueError):
        return None
    parameters = [
        p.replace(default=_FACTORY) if repr(p.default) == "<factory>" else p
        for p in written.parameters.values()
    ]
    written = written.replace(parameters=parameters)
    if what == "method" and parameters and parameters[0].name in {"self", "cls"}:
        written = written.replace(parameters=parameters[1:])
    if what == "class":
        written = written.replace(return_annotation=inspect.Signature.empty)
    arguments, _, returned = stringify_signature(written).rpartition(" -> ")
    return (arguments, returned) if arguments else (returned, None)


def setup(app):
    """Register both."""
    app.connect("autodoc-process-signature", as_written)
    app.connect("missing-reference", follow, priority=400)
