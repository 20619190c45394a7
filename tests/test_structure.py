"""The structure of the package: who imports whom, which file knows what, and plain words."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "numpyro_genprior"
FILES = sorted(PACKAGE.rglob("*.py"))

# From left to right along the path of docs/architecture.md: a folder imports from its left only.
PATH = [
    ("errors", "results", "validation"),
    ("networks",),
    ("flows",),
    ("priors",),
    ("sites",),
    ("operators",),
    ("infer",),
    ("diagnostics",),
    ("train",),
    ("io", "plots", "pretrained", "testing", "traces"),
]
PLACE = {folder: place for place, folders in enumerate(PATH) for folder in folders}
MAX_LINES = 500


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def folder_of(module):
    return module.split(".")[1] if "." in module else ""


def imported(node):
    """Modules of this package that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in MODULES]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        found = [name for name in inner if name in MODULES]
        if len(found) < len(inner) and node.module in MODULES:
            found.append(node.module)
        return found
    return []


def when_imported(tree):
    """The statements that run when a module is imported, without those for type checkers."""
    for node in tree.body if isinstance(tree, ast.Module) else tree:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.dump(node.test):
                yield from when_imported(node.body)
            yield from when_imported(node.orelse)
        elif isinstance(node, ast.Try):
            for part in (node.body, node.orelse, node.finalbody):
                yield from when_imported(part)
        elif isinstance(node, ast.ClassDef):
            yield from when_imported(node.body)
        else:
            yield node


TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
IMPORTS = {
    module: sorted({name for node in when_imported(tree) for name in imported(node)} - {module})
    for module, tree in TREES.items()
}


def test_imports_point_left_along_the_path():
    right = [
        f"{module} imports {name}"
        for module, tree in TREES.items()
        if folder_of(module)
        for node in ast.walk(tree)
        for name in imported(node)
        if folder_of(name) not in ("", "plots")
        and PLACE[folder_of(name)] > PLACE[folder_of(module)]
    ]
    assert not right


def test_plots_are_imported_inside_methods_only():
    outside = {
        module: [name for name in names if folder_of(name) == "plots"]
        for module, names in IMPORTS.items()
        if folder_of(module) not in ("", "plots")
    }
    assert not {module: names for module, names in outside.items() if names}


def test_no_import_circles():
    done, circles = set(), []

    def visit(module, above):
        if module in above:
            circles.append([*above[above.index(module) :], module])
        elif module not in done:
            for name in IMPORTS[module]:
                # A package's own __init__ is imported with any of its modules, and is no circle.
                if not module.startswith(f"{name}."):
                    visit(name, [*above, module])
            done.add(module)

    for module in IMPORTS:
        visit(module, [])
    assert not circles


FAMILIES = {"FlowPrior", "GANPrior", "GaussianFieldPrior", "GaussianPrior", "VAEPrior"}
KNOW_FAMILIES = {"priors", "train", "pretrained"}


def test_only_priors_and_training_know_the_families():
    """Code elsewhere calls the hooks of `Prior`; texts may name a family."""
    named = {}
    for module, path in MODULES.items():
        if folder_of(module) in KNOW_FAMILIES or path.name == "__init__.py":
            continue
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        names = {token.string for token in tokens if token.type == tokenize.NAME} & FAMILIES
        if names:
            named[module] = sorted(names)
    assert not named


def test_files_are_short():
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: n for module, n in lengths.items() if n > MAX_LINES} == {}


TEXTS = [
    *FILES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "examples").glob("*.py")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "README.md",
]  # CHANGELOG.md quotes old names
# A word that puzzles the reader, and the field's word for it.
AVOID = {
    r"\blaws?\b": "distribution (density, family, likelihood); only power laws are laws",
    r"\banew\b": "again",
    r"\bbefalls?\b": "happens to",
    r"\bwhence\b|\bthereof\b|\bwherein\b": "from which, of it, in which",
    r"\bundecorated\b": "a model without @ngp.latent",
    r"\ba stranger\b": "an unknown class",
    r"\bladders?\b": "schedule",
    r"\bof ours\b": "our own",
    r"\bpits?\b": "minimum",
    r"\bcreases?\b": "kink",
    r"\bkind to\b": "lenient",
}
EXCEPT = re.compile(r"power[- _]laws?|law of total variance", re.IGNORECASE)


@pytest.mark.parametrize("word", AVOID)
def test_words_to_avoid(word):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        if path != pathlib.Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(word, EXCEPT.sub("", line), re.IGNORECASE)
    ]
    assert not found, f"write {AVOID[word]} for:\n" + "\n".join(found)
