"""What a run leaves behind: results on disk, summary, figures and the HTML report."""

from diffcf_jax.report.html import write_report
from diffcf_jax.report.log import read_results, result_key
from diffcf_jax.report.results import ResultWriter
from diffcf_jax.report.summary import environment, summarise, write_summary

__all__ = [
    "ResultWriter",
    "environment",
    "read_results",
    "result_key",
    "summarise",
    "write_report",
    "write_summary",
]
