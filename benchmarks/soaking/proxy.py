"""A TCP proxy between an actor and its learner, which breaks what passes."""

import asyncio
import contextlib
import logging
import socket
import threading
from typing import Any

_CHUNK = 2**16
# Seconds between two pieces of what is throttled.
_TICK = 0.05


class Loop:
  """A thread for all proxies; a context manager."""

  def __enter__(self) -> asyncio.AbstractEventLoop:
    # Of each write to a connection that was cut.
    logging.getLogger('asyncio').setLevel(logging.ERROR)
    self._loop = asyncio.new_event_loop()
    self._thread = threading.Thread(target=self._loop.run_forever)
    self._thread.start()
    return self._loop

  def __exit__(self, *exception) -> None:
    asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
    self._loop.call_soon_threadsafe(self._loop.stop)
    self._thread.join()
    self._loop.close()

  async def _end(self) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
      task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Proxy:
  """Passes connections on, to be called from any thread.

  Attributes:
    port: where it listens, on localhost.
    connections: number of those that it has passed on.
  """

  def __init__(self, loop: asyncio.AbstractEventLoop, port: int):
    """Listens.

    Args:
      loop: of `Loop`.
      port: of the learner, on localhost.
    """
    self._loop = loop
    self._learner_port = port
    self._writers: set[asyncio.StreamWriter] = set()
    self._stalled_until = self._slow_until = self._out_until = 0.0
    self._rate = 0
    self._damage: tuple[str, int] | None = None
    self.connections = 0
    listener = socket.create_server(('localhost', 0))
    self.port = listener.getsockname()[1]
    asyncio.run_coroutine_threadsafe(
      asyncio.start_server(self._connect, sock=listener), loop
    ).result()

  # What breaks.

  def cut(self, outage: float = 0.0) -> None:
    """Resets all connections, and refuses others for some seconds."""

    def begin():
      self._out_until = self._loop.time() + outage
      self._abort_all()

    self._loop.call_soon_threadsafe(begin)

  def damage(self, kind: str, after: int) -> None:
    """Breaks a connection after so many more bytes.

    Args:
      kind: truncate = nothing more comes, and it is closed; half-close = the
        same in one direction, and the other stays open; flip = a bit changes.
      after: bytes, of either direction.
    """

    def begin():
      self._damage = kind, after

    self._loop.call_soon_threadsafe(begin)

  def stall(self, seconds: float) -> None:
    """Passes nothing on for a while, and then all of it."""

    def begin():
      self._stalled_until = self._loop.time() + seconds

    self._loop.call_soon_threadsafe(begin)

  def throttle(self, bytes_per_second: int, seconds: float) -> None:
    """Passes on no more, in each direction, for a while."""

    def begin():
      self._rate = bytes_per_second
      self._slow_until = self._loop.time() + seconds

    self._loop.call_soon_threadsafe(begin)

  # In the thread of the loop.

  async def _connect(
    self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
  ) -> None:
    writers = {writer}
    try:
      if self._loop.time() < self._out_until:
        return
      far_reader, far_writer = await asyncio.open_connection(
        'localhost', self._learner_port
      )
      writers.add(far_writer)
      self.connections += 1
      self._writers |= writers
      await asyncio.gather(
        self._carry(reader, far_writer), self._carry(far_reader, writer)
      )
    except (OSError, asyncio.CancelledError):
      pass  # One side is gone.
    finally:
      self._writers -= writers
      for one in writers:
        one.transport.abort()

  async def _carry(self, reader: Any, writer: Any) -> None:
    while data := await reader.read(_CHUNK):
      while (wait := self._stalled_until - self._loop.time()) > 0:
        await asyncio.sleep(wait)
      kind, data = self._damaged(data)
      await self._write(writer, data)
      if kind == 'truncate':
        raise ConnectionResetError
      if kind == 'half-close':
        break
    writer.write_eof()
    while await reader.read(_CHUNK):
      pass  # After half of it was closed.

  def _damaged(self, data: bytes) -> tuple[str, bytes]:
    """Returns what is done to a connection now, and what to pass on before."""
    if self._damage is None:
      return '', data
    kind, after = self._damage
    if after >= len(data):
      self._damage = kind, after - len(data)
      return '', data
    self._damage = None
    if kind != 'flip':
      return kind, data[:after]
    flipped = bytes([data[after] ^ 1])
    return kind, data[:after] + flipped + data[after + 1 :]

  async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
    while data and self._loop.time() < self._slow_until:
      piece = max(int(self._rate * _TICK), 1)
      writer.write(data[:piece])
      data = data[piece:]
      await asyncio.sleep(_TICK)
    writer.write(data)
    await writer.drain()

  def _abort_all(self) -> None:
    for writer in self._writers:
      with contextlib.suppress(OSError):
        writer.transport.abort()
