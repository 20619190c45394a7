"""What the documents promise: every public name described, and the two commands of the README."""

import inspect
import pathlib
import re

import pytest

import numpyro_genprior as ngp

ROOT = pathlib.Path(__file__).parents[1]
PUBLIC = [name for name in ngp.__all__ if not inspect.ismodule(getattr(ngp, name))]
MODULES = [  # `flows` holds adapters for the priors to use
    name for name in ngp.__all__ if inspect.ismodule(getattr(ngp, name)) and name != "flows"
]
PUBLIC += [
    f"{module}.{name}"
    for module in MODULES
    for name in getattr(getattr(ngp, module), "__all__", ())
]


def resolve(path):
    thing = ngp
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing


def documented_parameters(doc):
    """Names under the headings Parameters and Attributes of a numpydoc docstring."""
    found = set()
    for section in re.findall(
        r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\S+\n-+$|\Z)", doc, re.M | re.S
    ):
        for line in re.findall(r"^(\S[^\n]*)\n[ ]+\S", section, re.M):
            found |= {name.strip().lstrip("*") for name in line.split(",")}
    return found


@pytest.mark.parametrize("path", PUBLIC)
def test_every_parameter_is_described(path):
    thing = resolve(path)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    doc = inspect.getdoc(thing)
    assert doc, f"{path} has no docstring"
    parameters = {
        name
        for name, parameter in inspect.signature(thing).parameters.items()
        if name not in {"self", "validate_args"} and not name.startswith("_")
    }
    assert parameters <= documented_parameters(doc)


@pytest.mark.parametrize(
    "path", [p for p in PUBLIC if inspect.isclass(resolve(p)) and issubclass(resolve(p), ngp.Prior)]
)
def test_every_distribution_states_its_density_and_when_it_fails(path):
    doc = inspect.getdoc(resolve(path))
    assert "**Density**" in doc
    assert "**Fails when**" in doc


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs/api.md").read_text()
    listed = set(re.findall(r"^\.\. auto(?:class|function|data):: (?:\w+\.)*(\w+)", page, re.M))
    modules = set(re.findall(r"^\.\. automodule:: numpyro_genprior\.(\w+)", page, re.M))
    missing = [
        p for p in PUBLIC if p.split(".")[-1] not in listed and p.split(".")[0] not in modules
    ]
    assert not missing


def test_the_readme_has_the_two_commands():
    lines = [
        line for line in (ROOT / "README.md").read_text().splitlines() if "python3 -m venv" in line
    ]
    assert len(lines) == 2
    assert lines[0].endswith("python examples/quickstart.py")
    assert lines[1].endswith("pytest -q")


def test_the_readme_table_has_every_prior():
    page = (ROOT / "README.md").read_text()
    priors = [
        p for p in PUBLIC if isinstance(resolve(p), type) and issubclass(resolve(p), ngp.Prior)
    ]
    assert [p for p in priors if p != "Prior" and f"`{p}`" not in page] == []
