"""Trainings that end before their time."""

import pytest


def interrupt(model, event: str, **options) -> None:
    """Train until an event of the second epoch, and leave a training that can be resumed."""

    def stop(trainer):
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    model.add_callback(event, stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(**options)
