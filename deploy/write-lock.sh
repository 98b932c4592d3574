#!/usr/bin/env bash
# Usage: write-lock.sh PYTHON LOCKFILE - pin what PYTHON's environment holds, as pip constraints.
# Left out: build labels (torch 2.13.0+cpu is torch 2.13.0 with another build) and what only CUDA builds of PyTorch
# bring along and pin themselves. No hashes: they differ between those builds (docs/adr/0002).
set -euo pipefail
python=$1
lock=$2

pins=$("$python" -m pip freeze --exclude-editable \
    | sed -E 's/^([A-Za-z0-9._-]+==[^+ ]+)\+[A-Za-z0-9.]+$/\1/' \
    | grep -viE '^(lipcert|nvidia-|cuda-|triton==)' \
    | LC_ALL=C sort -f)
if odd=$(grep -vE '^[A-Za-z0-9._-]+==[A-Za-z0-9.!]+$' <<<"$pins"); then
    printf 'These are not plain pins, so nothing was written:\n%s\n' "$odd" >&2
    exit 1
fi
printf '# Written by "make lock"; used as pip constraints. See docs/adr/0002-setup-and-lock.md.\n%s\n' "$pins" >"$lock"
