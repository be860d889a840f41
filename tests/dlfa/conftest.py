"""Inputs that many tests share and none changes, made once a process."""

import pytest
from tiny_tasks import make_encoder, make_udpos


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """The directory of a small random encoder with its tokenizer."""
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A directory of udpos files in three made-up languages."""
    return make_udpos(tmp_path_factory.mktemp("udpos"))
