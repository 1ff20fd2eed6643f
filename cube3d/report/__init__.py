"""The report of a run: one self-contained HTML page and its pictures."""

from cube3d.report.page import write_report

__all__ = ["write_report"]
