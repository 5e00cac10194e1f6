"""The report of a study: one page with tables and figures, made from its records alone."""

from .recommend import Limits
from .write import ReportFiles, write_report

__all__ = ["Limits", "ReportFiles", "write_report"]
