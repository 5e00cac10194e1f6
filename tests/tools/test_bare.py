"""What a bare environment is lent. That a wheel works there is in tests/test_wheel.py."""

import os
from pathlib import Path

import pytest

from sparseq.errors import InputError, MachineError
from tools.bare import lend, main, required, use


def test_what_is_required_is_lent_and_nothing_else(tmp_path: Path) -> None:
    found = required(["torch>=2.6", "pytest>=8; extra == 'test'", "nothing; python_version < '3'"])
    assert {"torch", "filelock", "sympy", "mpmath"} <= set(found) and not {"pytest", "transformers"} & set(found)
    lend(list(found.values()), tmp_path)
    lent = os.listdir(tmp_path)
    assert {"torch", "sympy", "typing_extensions.py"} <= set(lent) and "transformers" not in lent
    assert any(name.startswith("torch-") and name.endswith(".dist-info") for name in lent)


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-thing is not installed here"):
        required(["no-such-thing"])
    with pytest.raises(InputError, match="there is no wheel"):
        main([str(tmp_path / "none.whl")])
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no torch' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(MachineError, match="the installed wheel does not work: no torch"):
        use(broken, tmp_path)
