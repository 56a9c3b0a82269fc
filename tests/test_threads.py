"""How many threads may be used: the user's word, the affinity, the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gantrt import threads
from gantrt.errors import UsageError
from gantrt.threads import cpu_quota, numa_nodes, thread_limit, usable_cpus


def cgroup(tmp_path: Path, membership: str, **files: str) -> tuple[Path, Path]:
    """A control-group file system with these files (/ written as __), and a process with this membership."""
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(membership)
    return tmp_path / "cgroup", tmp_path / "self"


def test_quota_of_a_container_is_seen_at_the_root(tmp_path: Path) -> None:
    assert cpu_quota(*cgroup(tmp_path, "0::/\n", cpu_max="150000 100000\n")) == 1.5


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    files = {"a__cpu_max": "400000 100000", "a__b__cpu_max": "max 100000", "a__b__c__cpu_max": "800000 100000"}
    assert cpu_quota(*cgroup(tmp_path, "0::/a/b/c\n", **files)) == 4


def test_quota_of_version_1(tmp_path: Path) -> None:
    files = {"cpu,cpuacct__job__cpu_cfs_quota_us": "300000", "cpu,cpuacct__job__cpu_cfs_period_us": "100000"}
    assert cpu_quota(*cgroup(tmp_path, "5:memory:/x\n4:cpu,cpuacct:/job\n", **files)) == 3


@pytest.mark.parametrize("text", ["max 100000\n", "nonsense", "", "0 100000", "-1 100000"])
def test_no_quota_is_no_limit(tmp_path: Path, text: str) -> None:
    assert cpu_quota(*cgroup(tmp_path, "0::/\n", cpu_max=text)) is None


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path / "none") is None


def test_callers_word_beats_environment_beats_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANTRT_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 64)
    monkeypatch.setattr(threads, "cpu_quota", lambda: 2.5)
    assert thread_limit() == 3  # a part of a CPU's time is worth a thread
    monkeypatch.setenv("GANTRT_THREADS", "7")
    assert thread_limit() == 7
    assert thread_limit(9) == 9


def test_nothing_said_and_nothing_limited_is_the_librarys_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANTRT_THREADS", raising=False)
    for quota in (None, float(usable_cpus()), 1e3):
        monkeypatch.setattr(threads, "cpu_quota", lambda quota=quota: quota)
        assert thread_limit() is None


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_environment_that_says_nonsense_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GANTRT_THREADS", text)
    with pytest.raises(UsageError, match="GANTRT_THREADS"):
        thread_limit()


def test_usable_cpus_are_those_of_the_affinity_mask() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_only_nodes_that_have_our_cpus_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for node, cpus in enumerate(["0-3,8", "4-7", "", "16-31"]):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(cpus + "\n")
    for mine, wanted in (({0, 8}, 1), ({3, 4}, 2), ({8, 5, 20}, 3), ({99}, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, mine=mine: mine)
        assert numa_nodes(tmp_path) == wanted
    assert numa_nodes(tmp_path / "none") == 1
