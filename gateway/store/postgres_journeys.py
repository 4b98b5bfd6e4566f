"""Transactions on a connection to PostgreSQL: how they begin and end, in pipeline mode or a statement at a time.

In pipeline mode a journey carries all that was written since the last one. What an end means is told apart here: it is
committed, nothing is, or nobody knows. It must not know what is done in between.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.generators import send
from psycopg.pq import TransactionStatus

from gateway.errors import StoreError
from gateway.store.postgres_line import Line
from gateway.store.postgres_tx import Lost, Unclear

SILENT = 1.0
"""Seconds without an answer after which is asked whether the server still has the transaction, before its end is."""
CHANNEL = "alert_gateway"


@contextlib.contextmanager
def one_view(line: Line, connection: psycopg.Connection[Any]) -> Iterator[psycopg.Pipeline]:
    """A transaction in pipeline mode in which all that is read is of one moment."""
    pipeline = connection.pipeline()
    journeys = pipeline.__enter__()
    at_once(journeys)
    try:
        connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield journeys
    finally:
        if connection.info.transaction_status is TransactionStatus.INERROR:
            forget(connection)
        try:
            with line.asking():
                try:
                    connection.execute(b"COMMIT")  # after a ROLLBACK, statements would be prepared anew
                finally:  # one that is left to itself writes its own lines to standard error
                    pipeline.__exit__(None, None, None)
        except psycopg.Error:
            line.drop()


@contextlib.contextmanager
def ahead(line: Line, connection: psycopg.Connection[Any]) -> Iterator[psycopg.Pipeline]:
    """A transaction in pipeline mode. It is committed at the end of the block, in the journey of what was written last;
    taken back where the block raises, and where a statement had failed, which raises `Unclear`."""
    pipeline = connection.pipeline()
    journeys = pipeline.__enter__()
    at_once(journeys)
    try:
        begun = connection.execute(b"BEGIN")
        yield journeys
        if begun.pgresult is None or time.monotonic() - line.heard > SILENT:  # is anybody there?
            _see_sent(line, journeys)
    except BaseException:
        with contextlib.suppress(psycopg.Error), line.asking():
            pipeline.__exit__(None, None, None)
        take_back(line, connection)
        raise
    try:
        with line.asking():
            committed = connection.execute(b"COMMIT")
            pipeline.__exit__(None, None, None)
    except psycopg.Error as error:
        if not line.is_lost and connection.info.transaction_status is TransactionStatus.INERROR:
            take_back(line, connection)
            raise Unclear(f"the store cannot be used: {line.masked(error)}") from None
        raise _in_doubt(line, error) from None
    _see_committed(committed.statusmessage)


def _see_sent(line: Line, journeys: psycopg.Pipeline) -> None:
    """Has what was sent ahead answered."""
    try:
        with line.asking():
            journeys.sync()
    except psycopg.Error as error:
        kind = Lost if line.is_lost else Unclear
        raise kind(f"the store cannot be used: {line.masked(error)}") from None


def say(line: Line, connection: psycopg.Connection[Any], statement: bytes) -> None:
    """One of the writer's own statements."""
    try:
        with line.asking():
            connection.execute(statement)
    except psycopg.Error as error:
        line.drop()
        raise Lost(f"the store cannot be used: {line.masked(error)}") from None


def end(line: Line, connection: psycopg.Connection[Any]) -> None:
    """Commits; raises `StoreError` where nothing is committed, or nobody knows."""
    try:
        with line.asking():
            said = connection.execute(b"COMMIT").statusmessage
    except psycopg.Error as error:
        raise _in_doubt(line, error) from None
    _see_committed(said)


def _in_doubt(line: Line, error: psycopg.Error) -> StoreError:
    line.drop(is_committing=True)
    return StoreError(f"whether the store has committed is not known: {line.masked(error)}")


def _see_committed(said: str | None) -> None:
    if said != "COMMIT":  # what failed in the transaction was passed over: then the server takes all of it back
        raise StoreError(f"the store has committed nothing: it answered {said}")


def take_back(line: Line, connection: psycopg.Connection[Any]) -> None:
    """Takes back whatever the transaction did."""
    forget(connection)
    try:
        with line.asking():
            connection.execute(b"ROLLBACK")
    except psycopg.Error:
        line.drop()


def tell(line: Line, connection: psycopg.Connection[Any], told: list[str]) -> None:
    """After the commit: one that notifies makes every other one wait for it to reach the disk."""
    if not told:
        return
    try:
        with line.asking():
            texts = list(dict.fromkeys(told))
            connection.execute(b"SELECT pg_notify(%s, told) FROM unnest(%s::text[]) AS told", (CHANNEL, texts))
    except psycopg.Error:
        line.drop(is_committing=True)


def at_once(pipeline: psycopg.Pipeline) -> None:
    """Has a pipeline send nothing before answers are asked for, and then all that waits in one go.

    A session that has been told a part of what is to come does not count as idle: of a process that was frozen in
    between, the server would keep the locks for as long as it stays so (see `postgres_line.IDLE`).
    """
    take = pipeline._communicate_gen

    def communicate() -> Iterator[Any]:
        if pipeline.result_queue and pipeline.result_queue[-1] is None:  # the end of a journey
            while pipeline.command_queue:
                pipeline.command_queue.popleft()()  # into a buffer
            yield from send(pipeline.pgconn)  # whole: what the socket would not take at once, nobody sends later
            yield from take()

    pipeline._communicate_gen = communicate  # type: ignore[method-assign,assignment]


def forget(connection: psycopg.Connection[Any]) -> None:
    """Has no statement taken for prepared any more; for after one that failed in a pipeline.

    Of those that were to be prepared behind it the server knows nothing, and psycopg does not always notice: it would
    ask for them by name for as long as the connection lasts.
    """
    connection._prepared.clear()
