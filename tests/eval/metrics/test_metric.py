"""The table of metrics and its page."""

from pathlib import Path

from eval.metrics.metric import METRICS, SETS

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


def test_the_page_lists_every_metric_as_the_table_has_it():
    for name, metric in METRICS.items():
        cells = [f"`{name}`{'*' if metric.full else ''}", metric.arrow.strip()]
        cells += [metric.about.replace("|", r"\|"), metric.reference]
        assert f"| {' | '.join(cells)} |" in PAGE
    for name, metric in SETS.items():
        assert f"| `{name}_NAME` | {metric.arrow} | {metric.about} |" in PAGE
