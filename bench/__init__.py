"""Benchmarks: what takes how long, beside what else does the same. See README.md."""
