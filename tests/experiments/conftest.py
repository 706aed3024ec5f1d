"""What tests of several commands share."""

import pytest


@pytest.fixture
def only_error(capsys):
    """Return the one line on stderr, which is an error."""

    def read():
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return read
