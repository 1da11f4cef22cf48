"""The first signal is answered, the second one does what it did before."""

import signal
import time

import pytest

from spikeseg.platform.cluster.cluster_loss import _LOST
from spikeseg.platform.cluster.signals import first_of_signals, first_signal


@pytest.mark.parametrize("number", [_LOST, signal.SIGUSR1], ids=["lost cluster", "named"])
def test_an_answer_may_raise_into_the_block(number: int) -> None:
    # Real-time signals have a number and no name.
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), first_signal(number, interrupt):
        signal.raise_signal(number)
        time.sleep(10)
    assert signal.getsignal(number) is before


def test_the_second_of_another_kind_acts_as_before() -> None:
    received: list[str] = []
    old = {
        number: signal.signal(number, lambda got, _: received.append(f"before {got}"))
        for number in (signal.SIGUSR1, signal.SIGUSR2)
    }
    try:
        with first_of_signals((signal.SIGUSR1, signal.SIGUSR2), lambda n: received.append(str(n))):
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    first, second = int(signal.SIGUSR2), int(signal.SIGUSR1)
    assert received == [str(first), f"before {second}", f"before {first}"]


def test_the_watch_of_a_lost_cluster_uses_no_notice_to_leave() -> None:
    from spikeseg.platform.train.faults.preemption import LEAVE_SIGNALS

    assert _LOST not in LEAVE_SIGNALS
