"""How many messages may be under way at once: fewer after a broker has refused many at once. Knows no link."""


class Window:
    """As large as the config says, until there is trouble; and again soon after it."""

    def __init__(self, most: int) -> None:
        """Initialise a window.

        Args:
            most: Its size without trouble.
        """
        self._most = most
        self.size = most

    def shrink(self) -> None:
        """What was under way may have been too much: try half of it."""
        self.size = max(1, self.size // 2)

    def grow(self) -> None:
        """A publication got through: try a little more. Twice as much would mostly be refused again."""
        self.size = min(self._most, self.size + self.size // 4 + 1)
