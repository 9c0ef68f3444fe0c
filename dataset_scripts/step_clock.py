"""How long each step of a piece of work takes."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class StepClock:
    """Counts seconds of processor time by the name of a step; a step within a step counts once.

    Attributes:
        seconds: name of a step -> seconds.
        counts: name of a step -> how often it was done.

    Example:
        >>> clock = StepClock()
        >>> with clock.step("add"):
        ...     total = sum(range(10))
        >>> clock.counts["add"]
        1
    """

    def __init__(self):
        self.seconds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._names: list[str] = []
        self._since = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Counts what is done within as this step, and no longer as the one around it."""
        self._turn()
        self._names.append(name)
        self.counts[name] += 1
        try:
            yield
        finally:
            self._turn()
            self._names.pop()

    def each(self, name: str, things: Iterable) -> Iterator:
        """Counts the making of each thing as this step, not what is done with it."""
        things = iter(things)
        end = object()
        while True:
            with self.step(name):
                thing = next(things, end)
            if thing is end:
                return
            yield thing

    def _turn(self) -> None:
        now = time.process_time()
        if self._names:
            self.seconds[self._names[-1]] += now - self._since
        self._since = now
