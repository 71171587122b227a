"""Chapter "Try it". The demo runs meanwhile, and is looked at in the end."""

import pytest

from tests.readme.document import Document
from tests.readme.terminal import Terminal


@pytest.mark.usefixtures("started")
def test_help_tells_how_to_run_some_of_the_tests(readme: Document, terminal: Terminal) -> None:
    assert "usage: packaging/test" in terminal.run(readme.take("packaging/test --help"))


@pytest.mark.usefixtures("started")
def test_help_tells_of_the_images_of_cards(readme: Document, terminal: Terminal) -> None:
    assert "--board" in terminal.run(readme.take("packaging/image --help"))
