"""The rows of the paper's tables; the runs themselves are those of `explain` and `evaluate`."""

from eval.protocols.paper import TABLES, _load, format_rows


def test_rows_of_the_paper_and_ours():
    found = {"mean": 0.5, "n": 630}
    metrics = {"square_mae": found, "success_rate": found, "iterations": found}
    lines = format_rows(TABLES[1], {"AC-RE": metrics, "Diff-AE-RE": metrics}).splitlines()
    assert lines[1].split() == ["AC-RE,", "paper", "0.13", "38.1", "0.012", "-", "-", "-"]
    assert lines[2].split() == ["AC-RE,", "here", "0.5000", "-", "-", "0.5000", "-", "0.5000"]
    ages = {"fva": {"mean": 0.931, "n": 1}, "oracle_mae": {"mean": 26.0, "n": 1}}
    both = {method: {**ages, "success_rate": found} for method in TABLES[2].published}
    text = format_rows(TABLES[2], both)
    assert "93.1000" in text and "0.2600" in text  # in the paper's units


def test_configs_of_the_tables():
    for table in TABLES.values():
        assert set(table.configs) == set(table.published)
        for name in table.configs.values():
            assert _load(name)["method"]["name"] in ("ac-re", "diffae-re")
