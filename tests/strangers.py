"""Others than this package's: what they send, and what listens elsewhere."""

import contextlib
import http.server
import socket
import subprocess
import sys
import threading

import grpc

from tests import programs


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


@contextlib.contextmanager
def silent_listener():
  """A port that takes connections and says nothing; yields its address."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    yield f'127.0.0.1:{server.getsockname()[1]}'


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


# TensorFlow's messages, written by hand.

DT_FLOAT, DT_STRING, DT_RESOURCE, DT_VARIANT = 1, 7, 20, 21


def _varint(number):
  encoded = b''
  while number > 127:
    encoded += bytes([number & 127 | 128])
    number >>= 7
  return encoded + bytes([number])


def _field(index, data):
  """A number or bytes as a field of a protocol buffer."""
  if isinstance(data, int):
    return _varint(index << 3) + _varint(data % 2**64)
  return _varint(index << 3 | 2) + _varint(len(data)) + data


def tensor(dtype, shape, strings=(), content=b''):
  """Returns a TensorProto."""
  dims = b''.join(_field(2, _field(1, n)) for n in shape)
  parts = [_field(1, dtype), _field(2, dims)]
  if content:
    parts.append(_field(4, content))
  return b''.join([*parts, *(_field(8, s) for s in strings)])


def call(address, method, *tensors):
  """Calls a method with any tensors; returns grpc.StatusCode.OK or why not."""
  request = _field(1, method.encode()) + b''.join(_field(2, t) for t in tensors)
  return call_raw(address, request)


def call_raw(address, request):
  """Sends any bytes as a call; returns grpc.StatusCode.OK or why not."""
  with grpc.insecure_channel(address) as channel:
    method = channel.unary_unary('/tensorflow.rpc.RpcService/Call')
    try:
      method(request, timeout=30)
    except grpc.RpcError as error:
      return error.code()
  return grpc.StatusCode.OK
