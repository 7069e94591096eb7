#!/usr/bin/env python3
import http.server, os, signal, socket, threading

class Handler(http.server.SimpleHTTPRequestHandler):
    server_version = f"child/{os.getpid()}"

server = http.server.ThreadingHTTPServer(None, Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)  # what dc_master listens on
server.socket.setblocking(False)         # old and new wake for the same connection
server.daemon_threads = False            # server_close() waits for answers under way
for number in signal.SIGHUP, signal.SIGTERM:
    signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
server.serve_forever(poll_interval=0.1)
server.server_close()
