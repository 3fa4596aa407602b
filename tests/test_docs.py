"""The pages in fedsim_np/docs: their code runs, and prints what they show.

Blocks that are marked as needing a package which may be missing are left out here: test_loggers_recipes.py runs them.
"""

import pytest
from conftest import PAGES, run_page


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_does_what_it_shows(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    run_page(page)
