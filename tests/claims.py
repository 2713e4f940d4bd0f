"""Calls that claim a message and never send it: HTTP/2 written by hand."""

import contextlib
import socket
import struct

_PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_HEADERS = 4
_SERVICE = '/scalable_agent.Learner'


def _frame(kind, flags, stream, payload):
  head = struct.pack('>I', len(payload))[1:]
  return head + bytes([kind, flags]) + struct.pack('>I', stream) + payload


def _header(name, value):
  """A field that is neither indexed nor compressed."""
  return b''.join(
    [b'\x00', *(bytes([len(t)]) + t.encode() for t in (name, value))]
  )


@contextlib.contextmanager
def claim(address, method, length, token='', calls=1):
  """Opens calls on a connection, and sends ten bytes of each one's message.

  Args:
    address: host:port.
    method: that is called.
    length: bytes that the message is said to have.
    token: that is shown; '' for none.
    calls: how many.
  """
  fields = {
    ':method': 'POST',
    ':scheme': 'http',
    ':path': f'{_SERVICE}/{method}',
    ':authority': 'localhost',
    'content-type': 'application/grpc',
    'te': 'trailers',
  }
  if token:
    fields['authorization'] = f'Bearer {token}'
  headers = b''.join(_header(*field) for field in fields.items())
  message = struct.pack('>BI', 0, length) + bytes(10)
  host, port = address.split(':')
  with socket.create_connection((host, int(port))) as connection:
    connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b''))
    for stream in range(1, 2 * calls, 2):
      connection.sendall(
        _frame(_HEADERS, _END_HEADERS, stream, headers)
        + _frame(_DATA, 0, stream, message)
      )
    yield connection
