"""Others than this package's: what they send, and what listens elsewhere."""

import contextlib
import http.server
import socket
import struct
import subprocess
import sys
import threading

import grpc

from tests import programs
from tests.waiting import DEADLINE_S


@contextlib.contextmanager
def python(script, *arguments):
  """Runs a script in another process; yields it with pipes for text."""
  process = programs.start(
    ['-c', script, *arguments],
    stdin=subprocess.PIPE,
    stderr=sys.__stderr__,
  )
  try:
    yield process
  finally:
    process.kill()
    process.communicate()


# What listens, and is no learner.


@contextlib.contextmanager
def silent_listener():
  """A port that takes connections and says nothing; yields its address."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    yield f'127.0.0.1:{server.getsockname()[1]}'


@contextlib.contextmanager
def _listener(answer):
  """A port whose connections are answered one by one; yields its address."""

  def serve():
    with contextlib.suppress(OSError):  # Of a listener that was closed.
      while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
          answer(connection)

  with socket.create_server(('127.0.0.1', 0)) as server:
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
      yield f'127.0.0.1:{server.getsockname()[1]}'
    finally:
      server.shutdown(socket.SHUT_RDWR)
      thread.join()


def closing_listener():
  """A port that closes each connection at once; yields its address."""
  return _listener(lambda connection: None)


def garbage_listener():
  """A port that answers with what is no HTTP/2; yields its address."""

  def answer(connection):
    connection.recv(1)
    connection.sendall(b'\xff' * 1000)

  return _listener(answer)


@contextlib.contextmanager
def http_server():
  """A server of something else; yields its address."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
      yield f'127.0.0.1:{server.server_port}'
    finally:
      server.shutdown()
      thread.join()


@contextlib.contextmanager
def proxy():
  """A stand-in for a proxy; yields its address and the hosts it is asked for.

  It opens no way to any of them.
  """
  asked = []

  def answer(connection):
    with connection.makefile('rb') as file:
      asked.append(file.readline().decode().split()[1])
    connection.sendall(b'HTTP/1.1 403 Forbidden\r\n\r\n')

  with _listener(answer) as address:
    yield address, asked


# What comes in without this package's client.


def call(address, method, request=b'', metadata=(), credentials=None):
  """Calls a method; returns the code, the details, and the metadata of it."""
  channel = (
    grpc.insecure_channel(address)
    if credentials is None
    else grpc.secure_channel(address, credentials)
  )
  with channel:
    one = channel.unary_unary(method)
    try:
      _, done = one.with_call(request, timeout=DEADLINE_S, metadata=metadata)
    except grpc.RpcError as error:
      done = error
    return done.code(), done.details(), tuple(done.trailing_metadata() or ())


PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
DATA, HEADERS, SETTINGS, CONTINUATION = 0, 1, 4, 9
END_HEADERS = 4


def frame(kind, flags=0, stream=0, payload=b''):
  """Returns a frame of HTTP/2."""
  length = struct.pack('>I', len(payload))[1:]
  return length + struct.pack('>BBI', kind, flags, stream) + payload


def headers(method, *more):
  """Returns the headers of a call, written out."""
  fields = [
    (b':method', b'POST'),
    (b':scheme', b'http'),
    (b':path', method.encode()),
    (b':authority', b'x'),
    (b'te', b'trailers'),
    (b'content-type', b'application/grpc'),
    *more,
  ]
  return b''.join(
    b'\0' + _length(name) + name + _length(value) + value
    for name, value in fields
  )


def _length(data):
  """Returns the length of a string, with a prefix of seven bits."""
  number = len(data)
  if number < 127:
    return bytes([number])
  number -= 127
  encoded = b'\x7f'
  while number > 127:
    encoded += bytes([number & 127 | 128])
    number >>= 7
  return encoded + bytes([number])


def claim(method, num_bytes, sent=1000, *more):
  """Returns a call whose message claims to be longer than what is sent."""
  message = b'\0' + struct.pack('>I', num_bytes) + bytes(sent)
  return b''.join(
    [
      PREFACE,
      frame(SETTINGS),
      frame(HEADERS, END_HEADERS, 1, headers(method, *more)),
      frame(DATA, 0, 1, message),
    ]
  )


def memory_of(process):
  """Returns the MiB that a process has in memory."""
  import psutil

  return psutil.Process(process.pid).memory_info().rss / 2**20
