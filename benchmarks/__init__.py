"""Programs that measure what the project promises; `RESULTS.md` shows what they printed."""
