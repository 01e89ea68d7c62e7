"""The parts of scripts/bench: the lab, the tools compared, what is measured, and the report."""
