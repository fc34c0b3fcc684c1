"""What a run's stages wrote becomes one self-contained HTML file; nothing is computed here but layout."""

from tuneworth.report.data import ReportData
from tuneworth.report.rendering import render_report

__all__ = ["ReportData", "render_report"]
