"""The gateway that an operator's command is about: with `--config` its store is opened, with `--url` a running gateway
is asked at its operators' address. It must not know what is asked for.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.showing import load_config

if TYPE_CHECKING:
    from gateway.admin.remote import Remote
    from gateway.config.config import Config
    from gateway.store import Tx


def _with_store(config: Config, work: Callable[[Tx, int], Any], *, writes: bool) -> Any:
    """Runs `work` in the configured store, beside the gateway that may be serving from it; the time that it is given is
    that gateway's."""
    from gateway.admin.operating import NotAsAsked
    from gateway.clock import Clock
    from gateway.config.config import UNTOLD
    from gateway.errors import StoreError
    from gateway.logs import configure
    from gateway.process.timekeeping import Timekeeping
    from gateway.store.moved import left
    from gateway.store.opening import open_store

    if config.store == UNTOLD:
        raise click.ClickException("store: its address is a secret that cannot be read; set what `store` refers to")
    if "://" not in config.store and not Path(config.store).exists():
        raise click.ClickException(f"there is no store at {config.store} yet")

    configure("warning")  # what a store logs is not part of the command's output

    def change(tx: Tx, now: int) -> Any:
        """Runs `work`, and takes it back where the store was moved: the transaction may have waited for the move."""
        found = work(tx, now)
        if moved := left(tx):
            raise NotAsAsked(moved.refusal)
        return found

    async def run() -> Any:
        async with open_store(config.store, exclusive=False) as store:
            moved = await store.read(left)
            if moved and writes:
                raise NotAsAsked(moved.refusal)
            clock = Clock()
            Timekeeping(clock, store)
            now = clock()
            return moved, await (
                store.write(lambda tx: change(tx, now)) if writes else store.read(lambda tx: work(tx, now))
            )

    try:
        moved, found = asyncio.run(run())
    except (StoreError, NotAsAsked) as error:
        raise click.ClickException(str(error)) from None
    if moved:
        click.echo(moved.remark, err=True)
    return found


def placed(command: Callable[..., None]) -> Callable[..., None]:
    """A decorator that adds the options which name a gateway, and passes them to the command as a `Place`."""

    @click.option("--config", "config_path", type=click.Path(), help="The configuration file; its store is opened.")
    @click.option("--url", metavar="ADMIN", help="Instead, the operators' address of a running gateway.")
    @click.option("--token", metavar="env:NAME", help="The token for --url: env:NAME or file:PATH.")
    @click.option("--ca", type=click.Path(), help="CA certificates to trust for --url, besides the usual ones.")
    @functools.wraps(command)
    def asked(
        *args: Any, config_path: str | None, url: str | None, token: str | None, ca: str | None, **more: Any
    ) -> None:
        if (config_path is None) == (url is None):
            raise click.UsageError("give --config FILE, or --url ADMIN for a running gateway")
        if url is None and (token or ca):
            raise click.UsageError("--token and --ca go with --url")
        command(*args, place=Place(config_path, url, token, ca), **more)

    return asked


class Place:
    """Which gateway is meant: the store of a configuration, or one that runs."""

    def __init__(self, config_path: str | None, url: str | None, token: str | None, ca: str | None) -> None:
        self._config_path = config_path
        self._url = url
        self._token = token
        self._ca = ca

    def ask(
        self, there: Callable[[Remote], Any], here: Callable[[Tx, Config, int], Any], *, writes: bool = False
    ) -> Any:
        """Runs `there` against the running gateway, or `here` in the store, whichever was named; `here` is also given
        the time in milliseconds, by the clock that the gateway goes by."""
        from gateway.admin.operating import NotAsAsked

        if self._url is None:
            assert self._config_path is not None
            config = load_config(self._config_path, secrets=False)
            return _with_store(config, lambda tx, now: here(tx, config, now), writes=writes)
        try:
            return there(self._remote(self._url))
        except NotAsAsked as refused:
            raise click.ClickException(str(refused)) from None
        except KeyError as missing:
            text = f"{self._url} answered without {missing}: is this the admin address?"
            raise click.ClickException(text) from None

    def wait_for_gateway(self, seconds: float) -> None:
        """Waits until a gateway that serves from the store has written there what it has in memory. A gateway that is
        asked itself needs no waiting for."""
        from gateway.store.opening import is_served

        if self._config_path is not None and is_served(load_config(self._config_path, secrets=False).store):
            time.sleep(seconds)

    def _remote(self, url: str) -> Remote:
        from gateway.admin.remote import Remote
        from gateway.config.secrets import Secret
        from gateway.config.values import is_address

        if not is_address(url):
            raise click.UsageError(f"--url: {url!r} is not an address such as http://127.0.0.1:9092")
        if self._token and not self._token.startswith(("env:", "file:")):
            raise click.UsageError("--token: write env:NAME or file:PATH; other users can see a token typed here")
        try:
            return Remote(url, Secret(self._token) if self._token else None, self._ca)
        except ValueError as error:
            raise click.UsageError(f"--token: {error}") from None
