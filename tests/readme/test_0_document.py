"""What is found in a README, so that nothing in it can go untried."""

import pytest

from tests.readme.document import Document

TEXT = """\
Text with `ivy`, `a.json` and `ivy status`; with `ivy
queue` over two lines, and `packaging/build-deb`.

    ivy update NAME           # a comment
    echo "a # b"

| Table | `man ivy` |

```json
{"a": 1}
```
```
    ivy in a drawing
```
"""
COMMANDS = {"ivy status", "ivy queue", "packaging/build-deb", "ivy update NAME", 'echo "a # b"', "man ivy"}


@pytest.fixture
def document() -> Document:
    return Document(TEXT)


def test_all_is_untried_at_first(document: Document) -> None:
    assert set(document.untried()) == {*COMMANDS, '{"a": 1}\n'}


def test_what_is_taken_or_left_out_is_tried(document: Document) -> None:
    assert document.take("ivy update", {"NAME": "1.1.0"}) == "ivy update 1.1.0"
    assert document.block("json", '"a"') == '{"a": 1}\n'
    document.leave_out("man ivy", "nobody reads it")
    assert set(document.untried()) == COMMANDS - {"ivy update NAME", "man ivy"}
    assert document.span("a.j") == "a.json"


def test_what_the_document_does_not_say_cannot_be_tried(document: Document) -> None:
    for beginning in ("ivy rollback", "ivy "):  # none, several
        with pytest.raises(LookupError):
            document.take(beginning)
    with pytest.raises(LookupError):
        document.take("ivy update", {"FILE": "x"})
    with pytest.raises(LookupError):
        document.block("json", "b")
    with pytest.raises(LookupError):
        document.leave_out("ivy rollback", "it is not there")
