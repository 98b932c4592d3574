"""The parts of the command line: what is typed, what is read, what is kept, what is shown.

cli ──options──► arrays, files, folder ──► modelling | auditing ──► certifier ──► tables | JSON

No command needs a server, and only `serve` imports one.
"""
