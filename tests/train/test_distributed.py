"""What processes share of each other's errors."""

from typing import Any

import pytest

from sparseq.errors import RAISED_ELSEWHERE, InputError, MachineError
from sparseq.train import distributed


class TwoProcesses:
    """Stands for torch.distributed in process `rank` of two; `others`: what the other one sends."""

    def __init__(self, patch: pytest.MonkeyPatch, rank: int, other: Any) -> None:
        self.rank, self.other, self.sent = rank, other, None
        patch.setattr(distributed, "rank", lambda: rank)
        patch.setattr(distributed, "world_size", lambda: 2)
        patch.setattr(distributed.dist, "broadcast_object_list", self.broadcast)
        patch.setattr(distributed.dist, "all_gather_object", self.gather)

    def broadcast(self, values: list[Any], src: int) -> None:
        assert src == 0
        if self.rank == 0:
            self.sent = values[0]
        else:
            values[0] = self.other

    def gather(self, values: list[Any], own: Any) -> None:
        self.sent = own
        values[self.rank], values[1 - self.rank] = own, self.other


def failing(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("rank", [0, 1])
def test_what_all_return(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    TwoProcesses(monkeypatch, rank, None)
    assert distributed.in_all(lambda: rank + 5) == rank + 5


def test_what_the_first_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    TwoProcesses(monkeypatch, 1, (7, None))
    assert distributed.in_first(lambda: 5) == 7
    first = TwoProcesses(monkeypatch, 0, None)
    assert distributed.in_first(lambda: 5) == 5 and first.sent == (5, None)


@pytest.mark.parametrize("shared", [distributed.in_first, distributed.in_all])
@pytest.mark.parametrize("error", [InputError("no file"), MachineError("disk full"), KeyError("a bug"), MemoryError()])
def test_none_waits_for_the_first_where_it_fails(
    shared: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TwoProcesses(monkeypatch, 0, None)
    with pytest.raises(type(error)) as caught:
        shared(lambda: failing(error))
    assert caught.value is error  # as it came, with its traceback
    sent = first.sent[1] if shared is distributed.in_first else first.sent
    assert isinstance(sent, InputError | MachineError)
    TwoProcesses(monkeypatch, 1, (None, sent) if shared is distributed.in_first else sent)
    with pytest.raises((InputError, MachineError)) as elsewhere:
        shared(lambda: 5)
    assert elsewhere.value is sent and RAISED_ELSEWHERE in sent.__notes__
    if not isinstance(error, InputError | MachineError):
        assert str(sent).startswith(f"process 0 failed ({type(error).__name__}")


def test_of_two_that_fail_the_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    TwoProcesses(monkeypatch, 1, InputError("of the first"))
    with pytest.raises(InputError, match="of the first") as caught:
        distributed.in_all(lambda: failing(InputError("of the second")))
    assert caught.value.__notes__ == [RAISED_ELSEWHERE]
    TwoProcesses(monkeypatch, 0, InputError("of the second"))
    with pytest.raises(InputError, match="of the first") as caught:
        distributed.in_all(lambda: failing(InputError("of the first")))
    assert not hasattr(caught.value, "__notes__")
