"""Transactions on a connection to PostgreSQL: how they begin and end, in pipeline mode or a statement at a time.

In pipeline mode a journey (one round trip) carries all that was written since the last one. The possible ends are told
apart here: committed, nothing committed, or unknown. It must not know what is done in between.
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
"""Seconds without an answer after which the server is asked for one before COMMIT is sent."""
CHANNEL = "alert_gateway"


@contextlib.contextmanager
def one_view(line: Line, connection: psycopg.Connection[Any]) -> Iterator[psycopg.Pipeline]:
    """A read-only transaction in pipeline mode that sees one snapshot."""
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
                    connection.execute(b"COMMIT")  # not ROLLBACK, after which statements would be prepared anew
                finally:  # left unclosed, a pipeline writes to standard error
                    pipeline.__exit__(None, None, None)
        except psycopg.Error:
            line.drop()


@contextlib.contextmanager
def ahead(line: Line, connection: psycopg.Connection[Any]) -> Iterator[psycopg.Pipeline]:
    """A writing transaction in pipeline mode. It is committed at the end of the block, in the journey that sends the
    last writes; rolled back if the block raises, or if a statement had failed, which raises `Unclear`."""
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
    """Waits for the answers to everything sent so far; raises `Lost` or `Unclear` if there is none or one failed."""
    try:
        with line.asking():
            journeys.sync()
    except psycopg.Error as error:
        kind = Lost if line.is_lost else Unclear
        raise kind(f"the store cannot be used: {line.masked(error)}") from None


def say(line: Line, connection: psycopg.Connection[Any], statement: bytes) -> None:
    """Runs a statement of the writer's own; raises `Lost` if it fails."""
    try:
        with line.asking():
            connection.execute(statement)
    except psycopg.Error as error:
        line.drop()
        raise Lost(f"the store cannot be used: {line.masked(error)}") from None


def end(line: Line, connection: psycopg.Connection[Any]) -> None:
    """Commits; raises `StoreError` if nothing was committed, or if that is unknown."""
    try:
        with line.asking():
            said = connection.execute(b"COMMIT").statusmessage
    except psycopg.Error as error:
        raise _in_doubt(line, error) from None
    _see_committed(said)


def _in_doubt(line: Line, error: psycopg.Error) -> StoreError:
    line.drop(is_committing=True)
    return StoreError(f"it is unknown whether the store has committed: {line.masked(error)}")


def _see_committed(said: str | None) -> None:
    if said != "COMMIT":  # a failed statement was ignored: then the server answers COMMIT with ROLLBACK
        raise StoreError(f"the store committed nothing: it answered {said}")


def take_back(line: Line, connection: psycopg.Connection[Any]) -> None:
    """Rolls the transaction back."""
    forget(connection)
    try:
        with line.asking():
            connection.execute(b"ROLLBACK")
    except psycopg.Error:
        line.drop()


def tell(line: Line, connection: psycopg.Connection[Any], told: list[str]) -> None:
    """Sends hints to other replicas, after the commit: a transaction with NOTIFY makes the commits of all others wait
    until it is on the disk."""
    if not told:
        return
    try:
        with line.asking():
            texts = list(dict.fromkeys(told))
            connection.execute(b"SELECT pg_notify(%s, told) FROM unnest(%s::text[]) AS told", (CHANNEL, texts))
    except psycopg.Error:
        line.drop(is_committing=True)


def at_once(pipeline: psycopg.Pipeline) -> None:
    """Makes a pipeline send nothing until an answer is waited for, and then everything queued in one go.

    A session that has received only some of a pipeline's messages does not count as idle: if this process were frozen
    in between, the server would keep its locks for as long as it stays frozen (see `postgres_line.IDLE`).
    """
    take = pipeline._communicate_gen

    def communicate() -> Iterator[Any]:
        if pipeline.result_queue and pipeline.result_queue[-1] is None:  # the end of a journey
            while pipeline.command_queue:
                pipeline.command_queue.popleft()()  # into a buffer
            yield from send(pipeline.pgconn)  # all of it: what the socket does not take at once would not be sent later
            yield from take()

    pipeline._communicate_gen = communicate  # type: ignore[method-assign,assignment]


def forget(connection: psycopg.Connection[Any]) -> None:
    """Makes psycopg forget all prepared statements, after one failed in a pipeline.

    Those that were to be prepared behind the failed one are unknown to the server, and psycopg does not always notice:
    it would refer to them by name for as long as the connection lasts.
    """
    connection._prepared.clear()
