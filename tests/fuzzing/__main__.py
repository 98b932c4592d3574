"""Run a campaign: `python -m tests.fuzzing --count 100000 --seed 1 --start 0`.

Prints how many mutants of each format ended how, and exits with 1 if one crashed the reader, ran too long, tried to
write or start anything, or let an exception escape that is no CertifierError.  Mutant number n of a campaign depends
on its seed and on n alone, so a campaign that was stopped goes on with `--start`, and `--count 1` repeats one mutant.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzzing.campaign import Campaign, Tally

STEP = 2000


def main() -> int:
    """0 if every mutant was certified or refused."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("build/fuzzing"), help="where faulty mutants are kept")
    chosen = parser.parse_args()
    campaign, tally = Campaign(seed=chosen.seed), Tally()
    started = time.monotonic()
    for number, outcome in campaign.run(chosen.start, chosen.start + chosen.count):
        fault = tally.add(campaign.form(number), outcome)
        if fault:
            print(f"mutant {number} ({campaign.form(number)}): {fault}", flush=True)
            chosen.save.mkdir(parents=True, exist_ok=True)
            (chosen.save / f"{chosen.seed}-{number}").write_bytes(campaign.mutant(number).data)
        if (number + 1) % STEP == 0:
            print(f"# {number + 1} after {time.monotonic() - started:.0f} s, {tally.faults} faults", flush=True)
    print(tally.table())
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
