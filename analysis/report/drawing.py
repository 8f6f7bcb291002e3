"""Who draws a report's figures: this process, at once, or one of its own, whose pictures are waited for at the end.

A figure is asked for by the name of its function below `analysis.report.figures`, such as `claims.forest`, so that who
asks need not import what draws.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from analysis.rendering.marks import Picture

if TYPE_CHECKING:
    from analysis.rendering.canvas import Drawing

# None where a figure has nothing to show.
Coming = Picture | Future[Picture | None] | None
Draw = Callable[..., Coming]
FIGURES = "analysis.report.figures"


def draw_here(figure: str, *arguments: Any, pdf: bool = False) -> Picture | None:
    """The picture of a figure, drawn by this process. pdf: also as one, drawn anew at the width of a column."""
    module, name = figure.split(".")
    function = getattr(import_module(f"{FIGURES}.{module}"), name)
    picture = rendered(function(*arguments))
    if picture is None or not pdf:
        return picture
    from analysis.rendering.canvas import COLUMN, as_wide_as, render_pdf

    with as_wide_as(COLUMN):
        return replace(picture, pdf=render_pdf(function(*arguments)))


def draw_and_clear(figure: str, *arguments: Any, pdf: bool = False) -> Picture | None:
    """The picture of a figure by who has set aside all that is older (`gc.freeze`): nothing of it is left behind."""
    picture = draw_here(figure, *arguments, pdf=pdf)
    # A figure's parts refer to each other in circles, which go in no time where nothing else is looked at.
    gc.collect()
    return picture


def rendered(drawing: Drawing | Picture | None) -> Picture | None:
    """A drawing as a picture, which takes a hundredth of its memory; what is one already, or nothing, stays so."""
    if drawing is None or isinstance(drawing, Picture):
        return drawing
    from analysis.rendering.canvas import render

    return render(drawing)


class Drawer:
    """A process that draws, as a context: it ends with it. It starts small, before anything large is imported.

    pdf: whether figures are also drawn as PDF.
    """

    def __init__(self, *, pdf: bool = False) -> None:
        self._pdf = pdf

    def __enter__(self) -> Drawer:
        self._here, there = Pipe()
        self._process = Process(target=_serve, args=(there, self._here, self._pdf), daemon=True)
        self._process.start()
        there.close()
        # One figure after the other is sent and heard, while this process goes on.
        self._courier = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._courier.shutdown(cancel_futures=True)
        self._here.close()
        self._process.join()

    def draw(self, figure: str, *arguments: Any) -> Future[Picture | None]:
        """The picture of a figure, some time. It raises what its function raises."""
        return self._courier.submit(self._fetch, figure, arguments)

    def _fetch(self, figure: str, arguments: tuple[Any, ...]) -> Picture | None:
        try:
            self._here.send((figure, arguments))
            picture, problem = self._here.recv()
        except (EOFError, OSError):
            # It was ended, such as for want of memory. What it would have drawn can be drawn here.
            return draw_and_clear(figure, *arguments, pdf=self._pdf)
        if problem is not None:
            raise problem
        return picture


def _serve(connection: Connection, other: Connection, pdf: bool) -> None:
    # While anybody holds the other end, nobody who waits at this one hears that it was closed.
    other.close()
    # An interrupt of the whole group is this process's end only by way of the other's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from threadpoolctl import threadpool_limits

    from analysis.report.figures import claims as _claims  # noqa: F401, imported while there is nothing else to do
    from analysis.report.figures import datasets as _datasets  # noqa: F401

    gc.collect()
    gc.freeze()
    # Each figure's garbage is collected once, when it is drawn.
    gc.disable()
    # One thread, as elsewhere in a report.
    with threadpool_limits(1):
        while True:
            try:
                figure, arguments = connection.recv()
            except (EOFError, OSError):
                # The other process has gone, or wants no more.
                return
            picture, problem = None, None
            try:
                picture = draw_and_clear(figure, *arguments, pdf=pdf)
            except Exception as raised:
                problem = raised
            try:
                connection.send((picture, problem))
            except OSError:
                return
