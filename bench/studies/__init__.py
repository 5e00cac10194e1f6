"""Measurements of more than one op: layers, models, training runs, formats."""
