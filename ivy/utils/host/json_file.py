"""A JSON file of one model: read, changed as a whole, and set aside where it is damaged. Knows no model."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Generic, TypeVar

import pydantic

from ivy import files
from ivy.types.config import describe
from ivy.utils.host import journal

_Model = TypeVar("_Model", bound=pydantic.BaseModel)

_KEPT = ".damaged"
_ASIDE = f"{_KEPT}-"
_UNREADABLE = (errno.EIO, errno.EUCLEAN, errno.EBADMSG)
"""What a disk says of a sector that it has lost, and a file system of what is not as it was written."""


class JsonFile(Generic[_Model]):
    """One such file. Its model has a default for each field: without a file, all is as those say.

    What cannot be done raises `OSError`; if the file is locked, that is a `TimeoutError`.
    """

    def __init__(
        self,
        path: str,
        model: type[_Model],
        lock: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        group_of: Path | None = None,
    ) -> None:
        """Touches nothing.

        Args:
            lock: Held while the file is used; by default its users see to it that there is one at a time.
            group_of: See `files.write_atomically`.
        """
        self.path = path
        self.group_of = group_of
        self._model = model
        self._lock = lock

    def load(self) -> _Model:
        """Load the content. A damaged file is moved to `<path>.damaged-<Unix time>`, and the journal told.

        So is one that the disk cannot read any more: that does not pass, and who needs it would wait for ever.
        """
        with self._lock():
            return self._load()

    @contextlib.contextmanager
    def update(self) -> Generator[_Model, None, None]:
        """Change the content: it is on disk when the body has ended. Nothing is written if the body raises."""
        with self._lock():
            content = self._load()
            before = self._text(content)
            yield content
            after = self._text(content)
            if after != before:
                files.write_atomically(Path(self.path), after, group_of=self.group_of)

    def peek(self) -> _Model:
        """The content, or none where the file cannot be read: for who may not repair it. Waits for nobody."""
        try:
            return self._parse()
        except (OSError, ValueError):
            return self._model()

    def tidy(self) -> bool:
        """Remove what is left of changes that a power cut ended. Of damaged files the last one is kept.

        Returns: Whether one was moved aside since the last time: its name is then `<path>.damaged`.
        """
        with self._lock():
            files.remove_stale(Path(self.path))
            self._load()
            path = Path(self.path)
            asides = sorted(path.parent.glob(f"{path.name}{_ASIDE}[0-9]*"))
            for aside in asides:
                files.remove(f"{path}{_KEPT}")
                aside.rename(f"{path}{_KEPT}")
            return bool(asides)

    def _load(self) -> _Model:
        try:
            return self._parse()
        except FileNotFoundError:
            return self._model()
        except OSError as error:
            if not files.is_out_of_place(error) and error.errno not in _UNREADABLE:
                raise
            trouble = str(error)
        except pydantic.ValidationError as error:
            trouble = describe(error)
        aside = f"{self.path}{_ASIDE}{time.time():.0f}"
        os.rename(self.path, aside)
        journal.send("ERROR", f"{self.path} is damaged: moved to {aside}, starting again", details=trouble)
        return self._model()

    def _parse(self) -> _Model:
        return self._model.model_validate_json(files.read(self.path))

    def _text(self, content: _Model) -> str:
        return content.model_dump_json(indent=4, by_alias=True) + "\n"
