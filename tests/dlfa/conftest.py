"""Inputs that many tests share and none changes, made once a process, and how a training is interrupted."""

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


@pytest.fixture
def interrupt_at_checkpoint(monkeypatch):
    """A function that trains by a configuration until the first checkpoint is complete, and is interrupted there."""
    import dlfa.training.trainer as trainer
    from dlfa.training.train import train

    original = trainer.mark_complete

    def stop(checkpoint, facts):
        original(checkpoint, facts)
        raise KeyboardInterrupt

    def interrupted(config):
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "mark_complete", stop)
            with pytest.raises(KeyboardInterrupt):
                train(config)

    return interrupted
