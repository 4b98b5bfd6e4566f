"""`serve`: a gateway as a process. Signals are owned here: on SIGTERM the gateway is no longer ready, serves on for a
while so that balancers notice, then drains and exits. It must not know any vendor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import structlog

from gateway.certificates import Following, not_after
from gateway.config import Config
from gateway.configfile import is_loopback
from gateway.errors import ConfigurationError, StoreError
from gateway.lean import settled
from gateway.listening import Tls
from gateway.logs import WORKER
from gateway.operations import SIGNAL, Operator, keep_reload
from gateway.server import bind, serving
from gateway.service import Gateway, fixed, takes_restart
from gateway.workers import SUPERVISOR, beat, hear_signals

log = structlog.get_logger()
LOOK_EVERY = 1.0
"""Seconds between looks at the certificate."""
SETTLE = 0.3
"""Seconds in which what callers sent before listening ended is still answered."""
LINGER = 3.0
"""Seconds between the end of readiness and the end of listening."""
ENDS = frozenset((signal.SIGTERM, signal.SIGINT))
"""Signals that ask for the end."""
BEGUN = "ALERT_GATEWAY_BEGUN"
"""The variable that tells a worker what its supervisor began with, of what takes a restart to change."""
Door = tuple[socket.socket | None, Following | None]
"""A socket that is bound already, and TLS where that is spoken there."""
TICK = 0.005
"""Seconds between two looks whether the store is open, while these are waited for."""
PATIENCE, OPERATORS_PATIENCE = 6, 1
"""Seconds that the end waits for callers, and for operators, who are slow to send or to read, one after the other:
together with the rest of the drain, less than the 25 s after which a process is killed."""


def run(load: Callable[[], Config], fd: int | None = None, admin_fd: int | None = None) -> int:
    """Serves until SIGTERM or SIGINT; answers the exit status. `load` reads the configuration, again at each SIGHUP;
    `fd` and `admin_fd` are listening sockets that a supervisor handed down. Raises `ConfigurationError` where it is
    bad."""
    _allow_many_connections()
    config = load()
    if problem := _differs_from_supervisors(config):
        log.critical("config.refused", problem=problem)
        return 1
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, load, fd, admin_fd))
    except StoreError as error:
        log.critical("store.unusable", reason=str(error))
        return 1


def _allow_many_connections() -> None:
    """Takes as many files as may be had: many systems let a process begin with 1,024, and where these are used up
    callers are reset without a word and nothing can be sent."""
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it, and not everywhere is that an amount
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def begun(config: Config) -> dict[str, str]:
    """The variable that has workers serve as their supervisor began."""
    return {BEGUN: json.dumps(_digests(config))}


def _digests(config: Config) -> dict[str, str]:
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in fixed(config).items()}


def _differs_from_supervisors(config: Config) -> str:
    """Why a worker cannot serve: one that is started again reads the file as it is by then, and beside others that go
    on with their store it would take alerts into another, where nobody ends them."""
    if BEGUN not in os.environ:
        return ""
    before = json.loads(os.environ[BEGUN])
    others = [name for name, digest in _digests(config).items() if digest != before[name]]
    return "; ".join(takes_restart(others).problems)


async def _serve(config: Config, load: Callable[[], Config], fd: int | None, admin_fd: int | None) -> int:
    gateway = Gateway(config)
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    reloading = _Reloading(gateway, load, is_one_of_many=fd is not None)
    gateway.reload_from_file = reloading.for_all
    tls, admin_tls = _contexts(config)
    if config.tls:
        _show_end(gateway, config.tls)
    beating = asyncio.create_task(beat()) if fd is not None else None  # also while it drains, until the loop ends
    async with contextlib.AsyncExitStack() as stack:
        try:  # before anything is delivered: whoever cannot serve must not tell anybody anything
            listener = stack.enter_context(_socket(config.listen, fd))
            admin_listener = stack.enter_context(_socket(config.admin, admin_fd)) if config.admin else None
        except OSError as error:
            return _cannot_listen(config, error)
        await stack.enter_async_context(gateway.running(_ending_at_once()))
        hear_signals()
        watching = [asyncio.create_task(reloading.when_asked(reload))]
        watching += [asyncio.create_task(_follow(gateway, config.tls, [one for one in (tls, admin_tls) if one]))]
        if fd is not None:
            watching.append(asyncio.create_task(_orphaned(stop)))
        try:
            await _serve_until(stop, gateway, config, (listener, tls), (admin_listener, admin_tls))
        except OSError as error:  # somebody else began to listen there while the store was opened
            return _cannot_listen(config, error)
        finally:
            for task in watching:
                task.cancel()
    if beating:
        beating.cancel()
    log.info("stopped")
    return 0


async def _serve_until(stop: asyncio.Event, gateway: Gateway, config: Config, callers: Door, operators: Door) -> None:
    """Serves callers and operators until it is to stop, and then for a while those who have not heard of that yet."""
    async with contextlib.AsyncExitStack() as listeners:
        if config.admin:
            listener, tls = operators
            admin = serving(gateway.admin_app, *config.admin, listener=listener, tls=tls, patience=OPERATORS_PATIENCE)
            log.info("serving.admin", url=await listeners.enter_async_context(admin))
        listener, tls = callers
        url = await listeners.enter_async_context(
            serving(gateway.app, *config.listen, listener=listener, tls=tls, settle=SETTLE, patience=PATIENCE)
        )
        settled()
        log.info("serving", url=url, dialects=list(config.inbounds), upstreams=list(config.upstreams))
        await stop.wait()
        gateway.is_draining = True
        log.info("draining", seconds=LINGER)
        await asyncio.sleep(LINGER)


def _contexts(config: Config) -> tuple[Following | None, Following | None]:
    """TLS for callers and for operators. Raises `ConfigurationError` where the pair or the authorities are bad."""
    try:
        tls = config.tls.context() if config.tls else None
        return tls, config.tls.context(asks=False) if config.tls and _is_remote(config) else None
    except ValueError as error:
        raise ConfigurationError([f"tls: {error}"]) from None


def _socket(address: tuple[str, int], fd: int | None) -> socket.socket:
    """The socket for an address, bound but not listening yet; or the one that a supervisor handed down."""
    return bind(*address) if fd is None else socket.socket(fileno=fd)


def _cannot_listen(config: Config, error: OSError) -> int:
    log.critical("listen.failed", listen=config.listen, admin=config.admin, reason=str(error))
    return 1


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """While the store is opened, which may take as long as somebody else's lock on it or an upgrade: a process that is
    asked to end then does so at once. Nothing is under way, and what the store was at, it takes back. A thread hears of
    it, as the event loop may stand still meanwhile."""
    is_open = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)

    def listen() -> None:
        while not is_open.is_set():
            if signal.sigtimedwait(ENDS, TICK):
                log.info("stopped", reason="the store was not open yet")
                sys.stderr.flush()
                os._exit(0)

    listening = threading.Thread(target=listen, name="ending", daemon=True)
    listening.start()
    try:
        yield
    finally:
        is_open.set()
        listening.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def _is_remote(config: Config) -> bool:
    """Whether operators come from elsewhere: on loopback there is nobody to hide anything from."""
    return config.admin is not None and not is_loopback(config.admin[0])


def _show_end(gateway: Gateway, tls: Tls) -> None:
    gateway.metrics.certificate_ends(tls.pair.cert, not_after(tls.pair.cert))


async def _follow(gateway: Gateway, tls: Tls | None, shown: list[Following]) -> None:
    """Takes up certificates that were replaced; a bad pair changes nothing, and is said."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        found = [(one, await asyncio.to_thread(one.look)) for one in shown]
        changed = [(one, what) for one, what in found if what != "same"]
        if not changed:
            continue
        bad = [one.fault for one, what in changed if what == "bad"]
        gateway.metrics.certificate(is_good=not bad)
        if bad:
            log.error("certificate.refused", reason=bad[0])
        elif tls:
            _show_end(gateway, tls)
            log.info("certificate.reloaded")


def _supervisor() -> int:
    """The process that started this worker, also after its end."""
    return int(os.environ.get(SUPERVISOR, os.getppid()))


async def _orphaned(stop: asyncio.Event) -> None:
    """A worker whose supervisor is gone ends too: nobody would ever tell it to."""
    supervisor = _supervisor()
    while os.getppid() == supervisor:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(1.0)
    log.error("supervisor.gone")
    stop.set()


class _Reloading:
    """Loads the configuration again when that is asked for; a bad one changes nothing, and is said. Of several workers
    that hear of it together the first counts it."""

    def __init__(self, gateway: Gateway, load: Callable[[], Config], *, is_one_of_many: bool) -> None:
        self._gateway = gateway
        self._load = load
        self._is_one_of_many = is_one_of_many
        self._is_first = os.environ.get(WORKER, "1") == "1"
        self._one_at_a_time = asyncio.Lock()
        self._is_echo = False

    async def when_asked(self, asked: asyncio.Event) -> None:
        """Waits for signals."""
        while True:
            await asked.wait()
            asked.clear()
            is_echo, self._is_echo = self._is_echo, False
            with contextlib.suppress(ConfigurationError, StoreError):
                await self._here(SIGNAL, is_counted=self._is_first and not is_echo)

    async def for_all(self, operator: Operator) -> None:
        """Reloads here, and has a supervisor tell the workers. That comes back here too, where the first has counted it
        already. Raises what is wrong with the configuration."""
        is_ours = os.environ.get(SUPERVISOR) == str(os.getppid())  # which is 1 in a container
        is_told_on = self._is_one_of_many and is_ours
        await self._here(operator, is_counted=self._is_first or not is_told_on)
        if is_told_on:
            self._is_echo = True
            os.kill(os.getppid(), signal.SIGHUP)

    async def _here(self, operator: Operator, *, is_counted: bool) -> None:
        gateway = self._gateway
        async with self._one_at_a_time:
            try:
                await gateway.reload(await asyncio.to_thread(self._load))
            except ConfigurationError as error:
                gateway.metrics.reload(is_good=False, is_counted=self._is_first or operator is not SIGNAL)
                for problem in error.problems:
                    log.error("config.refused", problem=problem)
                raise
            except StoreError as error:
                gateway.metrics.reload(is_good=False, is_counted=self._is_first or operator is not SIGNAL)
                log.error("store.unavailable", reason=str(error))
                raise
            except Exception as error:  # whoever waits for signals must not fall asleep
                gateway.metrics.reload(is_good=False, is_counted=self._is_first or operator is not SIGNAL)
                log.exception("config.refused")
                raise ConfigurationError([f"it cannot be loaded: {type(error).__name__}; the log has more"]) from None
            gateway.metrics.reload(is_good=True, is_counted=is_counted)
            log.info("config.reloaded", upstreams=list(gateway.config.upstreams), routes=len(gateway.config.routes))
            try:
                many = self._is_one_of_many
                await gateway.store.write(lambda tx: keep_reload(tx, operator, gateway.now(), is_one_of_many=many))
            except StoreError as error:  # it is in the log all the same
                log.error("store.unavailable", reason=str(error))
            log.warning("operator.reload", who=operator.who, origin=operator.origin)
