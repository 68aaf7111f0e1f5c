"""What `./mesh` refuses before anything starts, and how it leaves: pipes, signals, `chat --url`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import io
import operator
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from unittest import mock

from support import ROOT, InstanceTest

from mesh import __main__ as command_line
from mesh import arguments, chat, status, supervisor, up
from mesh.errors import MeshError
from mesh.instance import Instance

MESH = [str(ROOT / "mesh")]
TLS_HANDSHAKE = 0x16  # first byte of a TLS record
EVENTS = (b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
          b'data: {"choices": [{"delta": {"content": "two"}}]}\n\ndata: [DONE]\n\n')


class Gateway(BaseHTTPRequestHandler):
    """Answers every chat with EVENTS."""

    def do_POST(self) -> None:
        """A stream of two tokens."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(EVENTS)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def run_without_reader(*arguments_: str) -> subprocess.CompletedProcess[str]:
    """`./mesh` with nobody at the other end of its standard output."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run([*MESH, *arguments_], stdout=write, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, text=True, check=False)
    finally:
        os.close(write)


class CommandLineTest(InstanceTest):
    """Nothing here starts a mesh."""

    def test_flags_out_of_range_are_refused(self) -> None:
        for kind, bad in ((arguments.port, ("-1", "70000", "x", "", "8e1", "²")),
                          (arguments.seconds, ("0", "-1", "nan", "inf", "soon")),
                          (arguments.count, ("0", "-2", "1025", "two"))):
            for text in bad:
                self.assertRaises(argparse.ArgumentTypeError, kind, text)
        self.assertEqual((arguments.port("0"), arguments.port("65535")), (0, 65535))
        self.assertEqual((arguments.seconds("0.5"), arguments.count("4")), (0.5, 4))
        for flags in (("--port", "70000"), ("--port=-1",), ("--timeout", "0")):
            said = io.StringIO()
            with contextlib.redirect_stderr(said), mock.patch.object(up, "run") as started:
                self.assertRaises(SystemExit, command_line.main, ["up", *flags])
            started.assert_not_called()
            self.assertIn("must be a number", said.getvalue())

    def test_a_missing_model_is_said_before_the_build(self) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), mock.patch.object(up, "build") as built:
            code = command_line.main(["up", "--name", "test", "--model", str(self.instance.logs)])
        built.assert_not_called()
        self.assertEqual(code, 1)
        self.assertIn("there is no config.json", said.getvalue())

    def test_programs_that_were_never_built_are_named(self) -> None:
        said = io.StringIO()
        nowhere = self.instance.logs / "nowhere"
        with (contextlib.redirect_stderr(said), mock.patch.object(up, "build") as built,
              mock.patch.object(up, "binary", lambda name: nowhere / name)):
            code = command_line.main(["up", "--name", "test", "--no-build"])
        built.assert_not_called()
        self.assertEqual(code, 1)
        self.assertIn("expertmesh-router was never built", said.getvalue())

    def test_slices_by_hand(self) -> None:
        def choose(slices: str, experts: int | None = None) -> list[str]:
            return up.choose_slices(argparse.Namespace(slices=slices, experts=experts), ROOT, 32)

        self.assertEqual(choose("0-7; 8-31"), ["0-7", "8-31"])
        self.assertEqual(choose("0-3,8-31;4-7"), ["0-3,8-31", "4-7"])
        self.assertEqual(choose("0-31;0-15", 2), ["0-31", "0-15"])
        for slices, gap in (("0-15", "16-31"), ("8-31", "0-7"), ("0-7;9-30", "8-8")):
            with self.assertRaisesRegex(MeshError, f"no pool has the experts {gap};"):
                choose(slices)
        for slices, experts in (("0-7;", None), ("0-31", 2), ("a;b", None), ("0-32", None),
                                ("15-0;0-31", None), ("0-15,;16-31", None)):
            self.assertRaises(MeshError, choose, slices, experts)

    def test_unknown_profiles_are_refused(self) -> None:
        shown = {"kv_bytes_per_token": {"exact-f32": 800, "bf16": 400, "int8": 400}}
        up.check_profile("bf16", shown)
        with self.assertRaisesRegex(MeshError, "--profile fp8: there are exact-f32, bf16, int8"):
            up.check_profile("fp8", shown)

    def test_overrides_reach_every_process_with_a_model(self) -> None:
        parser = argparse.ArgumentParser()
        up.add_commands(parser.add_subparsers())
        args = parser.parse_args(["up", "--port", "0", "--override", "engram_layer_ids=[]",
                                  "--override", "index_topk=32"])
        started: dict[str, list[str]] = {}
        supervisor = mock.Mock(instance=self.instance)
        supervisor.start = lambda name, role, argv: started.update({role: argv})
        up.launch(supervisor, args, ROOT, ["0-15", "16-31"])
        self.assertEqual(len(started), 5)
        for role, argv in started.items():
            given = [word for word in argv if word.startswith("--override")]
            wanted = ["--override=engram_layer_ids=[]", "--override=index_topk=32"]
            self.assertEqual(given, [] if role == "router" else wanted, role)

    def test_hints_name_the_instance(self) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = status.run(argparse.Namespace(name="nope", watch=False, json=False))
        self.assertEqual(code, status.NOT_RUNNING)
        self.assertIn("./mesh up --name nope\n", said.getvalue())

    def test_a_reader_that_leaves_is_no_failure(self) -> None:
        done = run_without_reader("bench")
        self.assertEqual((done.returncode, done.stderr), (command_line.READER_LEFT, ""))
        for words in (("--help",), ("status", "--help")):  # argparse may ignore it itself
            self.assertEqual(run_without_reader(*words).stderr, "", words)

    def test_a_reader_that_leaves_chat(self) -> None:
        with HTTPServer(("127.0.0.1", 0), Gateway) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            done = run_without_reader("chat", "--model", "m", "--url",
                                      f"http://127.0.0.1:{server.server_port}/v1", "Hello")
            thread.join()
        self.assertEqual((done.returncode, done.stderr), (command_line.READER_LEFT, ""))

    def test_only_http_and_https_are_urls(self) -> None:
        for url in ("nonsense", "127.0.0.1:8080", "localhost:8080", "ftp://h", "http://", "",
                    "http://h:99999", "http://h:x", "https://h/other", "http://u:p@h",
                    "http://h?x=1", "http://a b", "http://[::1"):
            with self.assertRaises(MeshError, msg=url) as caught:
                chat.connect(url)
            self.assertEqual(caught.exception.exit_code, 2)
        plain = chat.connect("http://127.0.0.1:8080/v1")
        self.assertEqual((plain.host, plain.port), ("127.0.0.1", 8080))
        self.assertEqual(chat.connect("http://h").port, 80)
        self.assertEqual(chat.connect("https://h/v1/").port, 443)

    def test_https_speaks_tls(self) -> None:
        first: list[int] = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            def answer() -> None:
                peer, _ = server.accept()
                with peer:
                    first.append(peer.recv(1)[0])

            thread = threading.Thread(target=answer)
            thread.start()
            with self.assertRaisesRegex(MeshError, "does not answer like a gateway"):
                chat.first_model(f"https://127.0.0.1:{server.getsockname()[1]}")
            thread.join()
        self.assertEqual(first, [TLS_HANDSHAKE])

    def test_a_signal_to_up_detach_reaches_the_supervisor(self) -> None:
        program = (f"import os, sys; sys.path.insert(0, {str(ROOT / 'cli')!r})\n"
                   "from mesh import supervisor, up\n"
                   "code = up.detach(*os.pipe())\n"
                   "if code is None:\n"
                   "    signals = supervisor.StopSignals()\n"
                   "    print('starting', flush=True)\n"
                   "    print('stopped' if signals.wait(60) else 'went on', flush=True)\n"
                   "    os._exit(1)\n"
                   "os._exit(code)\n")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with subprocess.Popen([sys.executable, "-B", "-c", program], stdout=subprocess.PIPE,
                                  text=True) as front:
                assert front.stdout is not None
                self.assertEqual(front.stdout.readline(), "starting\n")
                front.send_signal(number)
                self.assertEqual(front.stdout.readline(), "stopped\n")
            self.assertEqual(front.returncode, 1)

    def test_a_signal_just_before_a_call_that_blocks_is_seen(self) -> None:
        for number in supervisor.StopSignals.NUMBERS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.addCleanup(signal.set_wakeup_fd, -1)
        signals = supervisor.StopSignals()
        for number in supervisor.StopSignals.NUMBERS:
            steps = (functools.partial(ctypes.CDLL(None).kill, os.getpid(), number),
                     functools.partial(select.select, [signals.fileno()], [], [], 0))
            # No byte code between the two, so no handler in Python.
            _, (readable, _, _) = map(operator.call, steps)
            self.assertEqual(readable, [signals.fileno()])
            self.assertTrue(signals.wait(0))
            self.assertFalse(signals.wait(0))

    def test_the_instance_is_named_only_if_it_must(self) -> None:
        self.assertEqual(self.instance.option, " --name test")
        self.assertEqual(Instance("default").option, "")


if __name__ == "__main__":
    unittest.main()
