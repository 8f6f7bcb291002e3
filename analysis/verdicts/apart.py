"""A second process that answers questions about test images, while this one draws what needs no answer.

It starts small, before this process has imported anything large, and never loads what this one needs for tables and
figures; nor does this one load the compiled code. Its answers are those of `analysis.verdicts.images.answers`, to the
last bit, and come one by one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from analysis.across.reml import Fit
    from analysis.verdicts.images import Answer, Question


class Apart:
    """The second process, as a context manager that ends it. `ask` may be called once."""

    def __enter__(self) -> Apart:
        self._here, there = Pipe()
        self._process = Process(target=_serve, args=(there, self._here), daemon=True)
        self._process.start()
        there.close()
        return self

    def __exit__(self, *_: object) -> None:
        # The other process ends when nobody is left to ask or to listen.
        self._here.close()
        self._process.join()

    def ask(
        self,
        folder: Path | str,
        questions: Sequence[Question],
        rng: np.random.Generator,
        draws: int,
        designs: Sequence[tuple[np.ndarray, ...]] = (),
    ) -> Iterator[Answer | Fit | None]:
        """The answers one by one, as they come; after the last, the generator is where the other process left it."""
        # If it has died, the first answer will say so.
        with suppress(OSError):
            self._here.send((folder, questions, rng, draws, designs))
        return self._answers(folder, questions, rng, draws, designs)

    def _answers(
        self,
        folder: Path | str,
        questions: Sequence[Question],
        rng: np.random.Generator,
        draws: int,
        designs: Sequence[tuple[np.ndarray, ...]],
    ) -> Iterator[Answer | Fit | None]:
        came = 0
        while True:
            try:
                answer, problem, state = self._here.recv()
            except (EOFError, OSError):
                # It was killed, perhaps for lack of memory. This process can find its answers.
                from analysis.verdicts.images import answers

                yield from islice(answers(folder, questions, rng, draws, designs), came, None)
                return
            if state is not None:
                rng.bit_generator.state = state
                if problem is not None:
                    raise ValueError(problem)
                return
            came += 1
            yield answer


def _serve(connection: Connection, other: Connection) -> None:
    # While anybody holds the other end, nobody who waits at this one hears that it was closed.
    other.close()
    # An interrupt of the whole group is this process's end only by way of the other's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from threadpoolctl import threadpool_limits

    from analysis.paired import kernels as _kernels  # noqa: F401, imported while there is nothing else to do
    from analysis.verdicts.images import answers

    try:
        folder, questions, rng, draws, designs = connection.recv()
        problem: str | None = None
        # One thread, as there: the number of threads shows in the last digit.
        with threadpool_limits(1):
            try:
                for answer in answers(folder, questions, rng, draws, designs):
                    connection.send((answer, None, None))
            except ValueError as refused:
                problem = str(refused)
        state: Any = rng.bit_generator.state
        connection.send((None, problem, state))
    except (EOFError, OSError):
        # The other process is gone.
        return
