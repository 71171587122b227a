"""Measurements by hand, not in CI: machines differ. Each figure stands beside what the machine itself can do."""
