"""A link of few bytes a second: a proxy for TCP.

  python slow_link.py FROM_PORT TO_HOST TO_PORT BYTES_PER_SECOND ROOM

says `ready` and carries what comes, in both directions alike, until it is
killed. Twice ROOM bytes wait in it, in each direction.
"""

import socket
import sys
import threading
import time

_PIECE = 4096


def _carry(source, target, rate):
  due = time.monotonic()
  pause = threading.Event()
  while data := source.recv(_PIECE):
    target.sendall(data)
    due = max(due, time.monotonic()) + len(data) / rate
    pause.wait(max(0.0, due - time.monotonic()))
  target.shutdown(socket.SHUT_WR)


def main(from_port, to_host, to_port, bytes_per_second, room):
  with socket.socket() as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Before it listens, or connections have more.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(room))
    server.bind(('localhost', int(from_port)))
    server.listen()
    print('ready', flush=True)
    while True:
      near, _ = server.accept()
      far = socket.socket()
      far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(room))
      try:
        far.connect((to_host, int(to_port)))
      except ConnectionRefusedError:
        near.close()
        continue
      for source, target in ((near, far), (far, near)):
        target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
        threading.Thread(
          target=_carry,
          args=(source, target, float(bytes_per_second)),
          daemon=True,
        ).start()


if __name__ == '__main__':
  main(*sys.argv[1:])
