"""What a run leaves behind: results on disk, summary, figures and the HTML report."""

from diffcf_jax.report.html import write_report
from diffcf_jax.results.log import read_results, result_key
from diffcf_jax.results.summary import environment, summarise, write_summary
from diffcf_jax.results.writer import ResultWriter

__all__ = [
    "ResultWriter",
    "environment",
    "read_results",
    "result_key",
    "summarise",
    "write_report",
    "write_summary",
]
