"""The machine: programs, units, journal, signals, locks, clock, disk."""
