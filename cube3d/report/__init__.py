"""The report of a run, or of several seeds together: a self-contained page, or tables in Markdown."""

from cube3d.report.tables import terminal
from cube3d.report.write import write_report

__all__ = ["terminal", "write_report"]
