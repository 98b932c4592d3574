"""Which names of an exported program may share memory, so that what is written in place reaches all of them.

The program names a value once; a write in place gives the new value a new name, and every older name of the same
memory would read it too.  Names that cannot be told to be whole and equal are refused if they are read again.
"""

from __future__ import annotations

from collections.abc import Iterable


class Memory:
    """The memory that each name is in.  Names of the same memory share a number."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._names: list[set[str]] = []
        self._kept = set[int]()

    def fresh(self, names: Iterable[str]) -> None:
        """Each name is in memory of its own."""
        for name in names:
            self._places[name] = len(self._names)
            self._names.append({name})

    def share(self, names: Iterable[str], owner: str) -> None:
        """Each name may be in the memory of `owner`."""
        place = self._places[owner]
        for name in names:
            self._places[name] = place
            self._names[place].add(name)

    def keep(self, name: str) -> None:
        """What is in the memory of `name` outlives one run: a parameter, a buffer, or a value of an outer program."""
        self._kept.add(self._places[name])

    def is_kept(self, name: str) -> bool:
        """Whether writing to `name` would change what a later run computes."""
        return self._places[name] in self._kept

    def others(self, name: str) -> set[str]:
        """The other names of the memory of `name`."""
        return self._names[self._places[name]] - {name}
