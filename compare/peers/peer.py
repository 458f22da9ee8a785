#!/usr/bin/env python3
"""The designs of csdesign in plain Python, for comparison.

    peer.py fork|select|prefork|passfd HOST PORT N

They speak the protocol of this collection, print what its servers print, and
have the long backlog. What the originals get wrong is otherwise left as it is:
no timeouts, no child is replaced, and select sends with a blocking sendall.
"""
import os
import select
import signal
import socket
import sys


def handle(conn):
    request = conn.recv(1024)
    if request:
        count = int(request)
        print('Got request to send %d bytes. Sending them all...' % count, flush=True)
        conn.sendall(os.urandom(count))
    return request


def reap_children(signum, frame):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def fork(listener, _):
    signal.signal(signal.SIGCHLD, reap_children)
    while True:
        conn, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            handle(conn)
            os._exit(0)
        conn.close()


def select_(listener, _):
    rlist = [listener]
    while True:
        for sock in select.select(rlist, [], [])[0]:
            if sock is listener:
                rlist.append(listener.accept()[0])
            elif not handle(sock):
                rlist.remove(sock)
                sock.close()


def create_children(count, child_loop):
    """Starts children, and lets SIGINT and SIGTERM end them."""
    pids = []

    def cleanup(signum, frame):
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            os.waitpid(pid, 0)
        os._exit(0)

    # A signal that comes meanwhile waits until it can be handled.
    both = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    for index in range(count):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
            child_loop(index)
        pids.append(pid)
    for sig in both:
        signal.signal(sig, cleanup)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)


def prefork(listener, count):
    def child_loop(_):
        while True:
            conn, _ = listener.accept()
            handle(conn)
            conn.close()

    create_children(count, child_loop)
    while True:
        signal.pause()


def passfd(listener, count):
    pairs = [socket.socketpair() for _ in range(count)]

    def child_loop(index):
        pipe = pairs[index][1]
        while True:
            _, fds, _, _ = socket.recv_fds(pipe, 1, 1)
            conn = socket.socket(fileno=fds[0])
            handle(conn)
            conn.close()
            pipe.send(b'1')

    create_children(count, child_loop)
    free, busy = [pair[0] for pair in pairs], []
    while True:
        for sock in select.select(busy + ([listener] if free else []), [], [])[0]:
            if sock is listener:
                conn, _ = listener.accept()
                pipe = free.pop()
                socket.send_fds(pipe, [b'1'], [conn.fileno()])
                busy.append(pipe)
                conn.close()
            else:
                sock.recv(1)
                busy.remove(sock)
                free.append(sock)


def main():
    designs = {'fork': fork, 'select': select_, 'prefork': prefork, 'passfd': passfd}
    if len(sys.argv) != 5 or sys.argv[1] not in designs:
        sys.exit(__doc__)
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, lambda signum, frame: os._exit(0))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((sys.argv[2], int(sys.argv[3])))
    listener.listen(socket.SOMAXCONN)
    print('Listening on port %d ...' % listener.getsockname()[1], flush=True)
    designs[sys.argv[1]](listener, int(sys.argv[4]))


if __name__ == '__main__':
    main()
