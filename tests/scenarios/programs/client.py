"""What a client does in a scenario: `client.py HABIT HOST PORT [ARGUMENT]`, one line of JSON as its answer."""

import asyncio
import hashlib
import json
import resource
import socket
import sys
import time

CHUNK = bytes(range(256)) * 1024


def connect(host, port, timeout=15):
    return socket.create_connection((host, port), timeout)


def read_all(connection):
    pieces = []
    while piece := connection.recv(1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def echo(host, port, text="hello"):
    """Sends text, half-closes, reads the answer to its end."""
    with connect(host, port) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        return {"answer": read_all(connection).decode()}


def peer(host, port):
    """What getpeername() and getsockname() say at the client, and the first line that the server says."""
    with connect(host, port) as connection:
        line = connection.makefile("rb").readline().decode()
        return {
            "getpeername": connection.getpeername()[:2],
            "getsockname": connection.getsockname()[:2],
            "line": line.strip(),
        }


def greeting(host, port):
    with connect(host, port) as connection:
        reader = connection.makefile("rb")
        first = reader.readline().decode().strip()
        connection.sendall(b"thanks\n")
        return {"first": first, "then": reader.readline().decode().strip()}


def download(host, port, size):
    """Reads `size` bytes and their digest; whether they agree."""
    with connect(host, port, 120) as connection:
        connection.sendall(f"{size}\n".encode())
        left, digest = int(size), hashlib.sha256()
        while left:
            piece = connection.recv(min(left, 1 << 20))
            if not piece:
                return {"missing": left}
            digest.update(piece)
            left -= len(piece)
        return {"same": digest.hexdigest() == read_all(connection).decode(), "size": int(size)}


def upload(host, port, size):
    with connect(host, port, 120) as connection:
        left, digest = int(size), hashlib.sha256()
        while left:
            piece = CHUNK[:left]
            digest.update(piece)
            connection.sendall(piece)
            left -= len(piece)
        connection.shutdown(socket.SHUT_WR)
        count, theirs = read_all(connection).split()
        return {"same": theirs.decode() == digest.hexdigest(), "size": int(count)}


def reset(host, port):
    with connect(host, port) as connection:
        connection.sendall(b"please\n")
        try:
            return {"ended": "closed" if not read_all(connection) else "data"}
        except ConnectionResetError:
            return {"ended": "reset"}


def attempt(host, port):
    """Whether a connection works: `works`, or the name of what went wrong."""
    try:
        return {"result": "works" if echo(host, port)["answer"] == "hello" else "silent"}
    except OSError as problem:
        return {"result": type(problem).__name__}


async def _one_of_many(host, port, ready, everybody):
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 60)
    ready()
    await everybody.wait()
    writer.write(b"x" * 100)
    answer = await asyncio.wait_for(reader.readexactly(100), 60)
    writer.close()
    return len(answer)


async def _many(host, port, count):
    everybody, connected = asyncio.Event(), 0

    def ready():
        nonlocal connected
        connected += 1
        if connected == count:
            everybody.set()

    answers = await asyncio.gather(
        *(_one_of_many(host, port, ready, everybody) for _ in range(count)), return_exceptions=True
    )
    wrong = [repr(each) for each in answers if each != 100]
    return {"answered": len(answers) - len(wrong), "wrong": sorted(set(wrong))[:3]}


def many(host, port, count):
    """`count` connections that all stand at once before the first of them says anything."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return asyncio.run(_many(host, port, int(count)))


def churn(host, port, count):
    """`count` connections one after another."""
    for _ in range(int(count)):
        with connect(host, port) as connection:
            connection.sendall(b"x")
            connection.shutdown(socket.SHUT_WR)
            if connection.recv(10) != b"x":
                return {"done": False}
    return {"done": True}


def slow(host, port):
    """Asks for much, reads one byte a second until told to stop; then how far it came."""
    import select

    with connect(host, port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"100000000\n")
        print("reading", flush=True)
        count = len(connection.recv(1))
        while not select.select([sys.stdin], [], [], 1)[0]:
            count += len(connection.recv(1))
        return {"read": count}


def hold(host, port):
    """Keeps one connection; for each line on standard input it says it to the echo server and prints the answer."""
    with connect(host, port, None) as connection:
        reader = connection.makefile("rb")
        print("holding", flush=True)
        for line in sys.stdin:
            try:
                connection.sendall(line.encode())
                print(reader.readline().decode().strip() or "closed", flush=True)
            except OSError as problem:
                print(type(problem).__name__, flush=True)
        return {"held": True}


def load(host, port):
    """New connections without a pause until standard input ends: how many worked, how many did not, and why."""
    import threading

    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    good, bad = 0, {}
    print("loading", flush=True)
    while not stop.is_set():
        try:
            if echo(host, port)["answer"] != "hello":
                raise ConnectionError("silent")
            good += 1
        except OSError as problem:
            bad[repr(problem)] = bad.get(repr(problem), 0) + 1
            time.sleep(0.01)
    return {"good": good, "bad": bad}


def ask(host, port, method="GET", path="/", *headers):
    """One HTTP request: status, fields and body of the answer, or why there is none."""
    import http.client

    client = http.client.HTTPConnection(host, port, timeout=15)
    try:
        client.request(method, path, headers=dict(each.split("=", 1) for each in headers))
        answer = client.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return {"status": answer.status, "headers": fields, "body": answer.read().decode()}
    except (OSError, http.client.HTTPException) as problem:
        return {"status": 0, "error": repr(problem)}
    finally:
        client.close()


def asking(host, port):
    """GETs without a pause until standard input ends, half of them on connections that are kept: what came of them."""
    import http.client
    import threading

    stop, lock, found = threading.Event(), threading.Lock(), {}

    def count(outcome):
        with lock:
            found[outcome] = found.get(outcome, 0) + 1

    def one(client):
        try:
            client.request("GET", "/")
            answer = client.getresponse()
            body = answer.read()
            reason = "" if answer.status == 200 else f" {body[:100].decode(errors='replace')}"
            count(f"{answer.status}{reason}")
        except (OSError, http.client.HTTPException) as problem:
            client.close()
            count(repr(problem))
            time.sleep(0.01)

    def go(keep):
        client = http.client.HTTPConnection(host, port, timeout=15)
        while not stop.is_set():
            one(client)
            if not keep:
                client.close()

    threads = [threading.Thread(target=go, args=(keep,)) for keep in (True, False)]
    for thread in threads:
        thread.start()
    print("asking", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    return found


def resolve(host, _port):
    found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return {"addresses": sorted(found)}


HABITS = {
    habit.__name__: habit
    for habit in (
        *(echo, peer, greeting, download, upload, reset, attempt, many, churn, slow, hold, load, ask, asking),
        resolve,
    )
}

if __name__ == "__main__":
    name, host, port, *arguments = sys.argv[1:]
    print(json.dumps(HABITS[name](host, int(port), *arguments)))
