"""The processes below one process (Linux): list their users, or stop the server among them with SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path


def status_field(pid: int, field: str) -> str:
    """A field of /proc/PID/status; empty if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:")), "")


def descendants(root: int) -> list[int]:
    """Every living process below `root`, parents before children."""
    parents = {int(entry.name): status_field(int(entry.name), "PPid") for entry in Path("/proc").glob("[0-9]*")}
    found = [root]
    for process in found:
        found += [pid for pid, parent in parents.items() if parent == str(process)]
    return found[1:]


def runs(pid: int, command: str) -> bool:
    """Whether a process was started as `command`, or as the interpreter of it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    # The builder's own process has the command among its arguments, and would take it down with a kill.
    return not words[0].startswith("buildah") and any(Path(word).name == command for word in words[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("uids", "stop"))
    parser.add_argument("--root", type=int, required=True)
    parser.add_argument("--command", help="only processes started as this command, and what is below them")
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()

    below = descendants(arguments.root)
    servers = below if arguments.command is None else [pid for pid in below if runs(pid, arguments.command)]
    if arguments.what == "uids":
        family = {pid for server in servers for pid in (server, *descendants(server))}
        uids = {uid for pid in family for uid in status_field(pid, "Uid").split()}
        print(*sorted(uids))
        return
    if not servers:
        raise SystemExit("There is no such process to stop.")
    for pid in servers if arguments.command is None else servers[:1]:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + arguments.seconds
    while any(status_field(pid, "State")[:1] not in ("", "Z") for pid in servers):
        if time.monotonic() > deadline:
            raise SystemExit(f"SIGTERM did not stop the server within {arguments.seconds:.0f} seconds.")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
