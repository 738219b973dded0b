import pytest

from diffcf_jax.counterfactual import memory


def write_group(folder, names, most, used, cached):
    folder.mkdir(parents=True)
    limit, usage, file_pages = names
    (folder / limit).write_text(f"{most}\n")
    (folder / usage).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\n{file_pages} {cached}\n")


@pytest.mark.parametrize(
    ("line", "top", "names"),
    [
        ("0::/job/step", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu,memory:/job/step",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_the_limits_of_all_control_groups_count(tmp_path, line, top, names):
    root = tmp_path / "cgroup"
    write_group(root / top / "job" / "step", names, "max", 100, 0)
    write_group(root / top / "job" / "other", names, 1, 1, 0)
    groups = tmp_path / "groups"
    groups.write_text(f"9:name=systemd:/\n{line}\n")
    assert list(memory._free_in_groups(groups, root)) == []
    (root / top / "job" / "memory.stat").write_text(f"{names[2]} 20\n")
    (root / top / "job" / names[0]).write_text("1000\n")
    (root / top / "job" / names[1]).write_text("300\n")
    assert list(memory._free_in_groups(groups, root)) == [720]
    # In a container the path is that of the host, and the top is what bounds it.
    groups.write_text(line.replace("/job/step", "/host/id") + "\n")
    (root / top / "job" / "memory.stat").rename(root / top / "memory.stat")
    (root / top / "job" / names[0]).rename(root / top / names[0])
    (root / top / "job" / names[1]).rename(root / top / names[1])
    assert list(memory._free_in_groups(groups, root)) == [720]
    assert list(memory._free_in_groups(tmp_path / "missing", root)) == []
