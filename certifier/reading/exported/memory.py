"""Which names of an exported program may share memory, so that what is written in place reaches all of them.

The program names a value once; a write in place gives the new value a new name, and every older name of the same
memory would read it too.  What a view shows is taken from its source again; names of which nobody can tell how they
lie in the memory are refused if they are read again.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import replace

from certifier.reading.aten.views import View, Writes
from certifier.reading.emitting import Emitter, Ref


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


class Views:
    """Which name is a view of which other one, and which of them have to be looked at again."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[str, View | None, str]] = {}
        self._lookers: dict[str, set[str]] = {}
        self._stale = set[str]()
        self._writes, self._calls = Writes(), 0

    def add(self, names: Sequence[str], source: str, view: View | None, *, several: bool, where: str) -> None:
        """Each name is what `view` shows of `source`, or, with None, all of it; `several`: each is one of its parts."""
        for part, name in enumerate(names):
            shown = replace(view, part=part) if view is not None and several else view
            self._sources[name] = (source, shown, where)
            self._lookers.setdefault(self._base(source)[0], set()).add(name)

    def renew(self, name: str, values: MutableMapping[str, object], emitter: Emitter) -> None:
        """Take the value of `name` from its source again, if something was written there.

        Raises: what `lower` raises.
        """
        if name not in self._stale:
            return
        self._stale.discard(name)
        where = self._sources[name][2]
        base, path = self._base(name)
        self._count(emitter, len(path), where)
        source = values[base]
        assert isinstance(source, Ref)
        values[name] = self._writes.shown(emitter, source, path, where)

    def written(
        self, target: str, value: Ref, values: MutableMapping[str, object], place: tuple[Emitter, str, str]
    ) -> set[str]:
        """The value that was written to `target` in all names that are known to see it; those names.

        Raises: UnsupportedNode, and what `lower` raises.
        """
        emitter, operator, where = place
        base, path = self._base(target)
        if path:
            old = values[base]
            assert isinstance(old, Ref)
            self._count(emitter, len(path), where)
            values[base] = self._writes.written(emitter, old, path, value, operator=operator, where=where)
        else:
            values[base] = value
        lookers = self._lookers.get(base, set())
        self._stale |= lookers
        values[target] = value
        self._stale -= {base, target}
        return lookers | {base, target}

    def _base(self, name: str) -> tuple[str, list[View]]:
        """The name that is a view of no other, and the views from there to `name`."""
        path: list[View] = []
        while name in self._sources:
            name, view, _ = self._sources[name]
            if view is not None:
                path.append(view)
        return name, path[::-1]

    def _count(self, emitter: Emitter, calls: int, where: str) -> None:
        """Views that are looked through again and again cost as much as nodes."""
        self._calls += 2 * calls
        emitter.limits.demand("nodes", self._calls, where)
