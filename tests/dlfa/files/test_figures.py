"""Figures without a display: titles that are no mathematics, and a backend that is not installed."""

import os
import subprocess
import sys
from pathlib import Path

from dlfa.files.figures import new_figure, write_png


def test_titles_may_hold_dollar_signs(tmp_path: Path) -> None:
    figure = new_figure(2, 2)
    figure.suptitle("runs/x$^$y")
    figure.subplots().set_title("a$^$b")
    write_png(figure, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_backend_of_a_notebook_need_not_be_there(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from dlfa.files.figures import new_figure, write_png; "
        f"write_png(new_figure(2, 2), Path({str(tmp_path / 'plot.png')!r})); print(os.environ['MPLBACKEND'])"
    )
    environment = {**os.environ, "MPLBACKEND": "module://of_a_notebook.backend"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "module://of_a_notebook.backend\n"
    assert (tmp_path / "plot.png").is_file()
