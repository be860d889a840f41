"""The commit of the source that runs."""

import subprocess

from dlfa.evaluation import source


def test_commit_is_marked_where_the_packages_differ_from_it(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.setattr(source, "_ROOT", tmp_path)
    for name in ("dlfa/__init__.py", "dlfa_kernels/__init__.py", "more/results/old", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("")
    assert source.checkout_commit() is None
    git("init", "-q")
    assert source.checkout_commit() is None
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "README.md").write_text("changed")
    (tmp_path / "more/results/new").write_text("")
    assert source.checkout_commit() == commit
    assert source.checkout_commit("more", ":(exclude)more/results", digits=12) == commit[:12]
    assert source.checkout_commit("more") == f"{commit}-dirty"
    (tmp_path / "dlfa" / "new.py").write_text("")
    assert source.checkout_commit(digits=12) == f"{commit[:12]}-dirty"
    monkeypatch.setenv("PATH", "")
    assert source.checkout_commit() is None
