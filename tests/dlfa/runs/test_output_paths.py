"""Which files an output option may replace."""

import pytest

from dlfa.runs.output_paths import check_file


def test_neither_an_input_nor_the_link_that_names_it_is_replaced(tmp_path):
    file, link, another = (tmp_path / name for name in ("file", "link", "another"))
    file.write_text("mine")
    for each in (link, another):
        each.symlink_to(file)
    for output in (file, link, tmp_path / "sub" / ".." / "link"):
        with pytest.raises(ValueError, match="--output must not be a file that is read"):
            check_file(output, [link])
    check_file(another, [link])  # a link is replaced itself
    check_file(tmp_path / "new", [link])
