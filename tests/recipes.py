"""Running the code of a page in docs/recipes."""

import doctest
import pathlib

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def run_recipe(name):
    """Run the code of a recipe as a doctest; the names that it defines."""
    path = DOCS / "recipes" / f"{name}.md"
    names = {}
    test = doctest.DocTestParser().get_doctest(
        path.read_text(encoding="utf-8"), names, path.name, str(path), 0
    )
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False
    )
    results = runner.run(test, clear_globs=False)
    assert results.attempted > 0
    assert results.failed == 0
    return test.globs
