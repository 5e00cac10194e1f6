"""The documentation site: what is on it, and checks of what was built."""
