"""The report of a run: one self-contained HTML file, its figures as JSON, and a picture for a README."""

from tasks.report.page import ReportInputs, render_report

__all__ = ["ReportInputs", "render_report"]
