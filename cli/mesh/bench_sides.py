"""The sides of a comparison: a mesh of processes, one process of ours, a peer's engine."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any

from mesh import bench_peer, model
from mesh.bench_run import RESULTS, Options, Request, say, tool, write_requests
from mesh.build import PROCESSES, binary
from mesh.down import reap_leftovers
from mesh.errors import MeshError
from mesh.instance import Instance
from mesh.supervisor import Supervisor
from mesh.up import cpus

READY_SECONDS = 900
POOLS = 2


class NoSignals:
    """In place of StopSignals: Ctrl-C ends a benchmark as an exception, as it ends Python."""

    def wait(self, seconds: float) -> bool:
        """False, after so long."""
        time.sleep(seconds)
        return False


class Mesh:
    """Processes of ours; `transport` inproc is one attention worker with all experts in it. A
    context manager: started on entry, gone on exit."""

    def __init__(self, name: str, options: Options, directory: Path, transport: str = "grpc",
                 gateway: bool = False, flags: tuple[str, ...] = ()) -> None:
        self.options = options
        self.directory = directory
        self.transport = transport
        self.gateway = gateway
        self.flags = flags
        self.instance = Instance(f"bench-{name}")
        self.lock: IO[str] | None = None
        self.supervisor: Supervisor | None = None

    def __enter__(self) -> Mesh:
        self.lock = self.instance.lock()
        reap_leftovers(self.instance)
        self.supervisor = Supervisor(self.instance, NoSignals(), lambda text: None,  # type: ignore
                                     restart=False)
        try:
            self._launch(self.supervisor)
            self.supervisor.wait_ready(READY_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.supervisor is not None:
            self.supervisor.stop()
            self.supervisor = None
        if self.lock is not None:
            self.lock.close()

    def _launch(self, supervisor: Supervisor) -> None:
        router, _, expert, attention, gateway = PROCESSES
        folder = self.instance.sockets
        attention_threads, expert_threads = self.options.threads
        served = ["--model", str(self.directory), "--served-model-name", "bench"]
        worker = [*served, "--profile", self.options.profile]
        to_router: list[str] = []

        def start(name: str, role: str, program: str, flags: list[str]) -> None:
            supervisor.start(name, role, [str(binary(program)), "--listen",
                                          f"unix:{folder}/{name}.sock", *flags])

        if self.gateway or self.transport != "inproc":
            start("router", "router", router, [])
            to_router = ["--router", f"unix:{folder}/router.sock"]
        if self.transport != "inproc":
            for pool, experts in enumerate(model.slices(self.directory, POOLS)):
                start(f"expert-{pool}", "expert-worker", expert,
                      ["--slice", experts, *worker, "--threads", str(expert_threads),
                       *cpus(expert_threads, pool + 1), *to_router])
        start("attention", "attention-worker", attention,
              [*worker, "--debug-api", "--transport", self.transport, "--threads",
               str(attention_threads), *cpus(attention_threads, 0), *to_router, *self.flags])
        if self.gateway:
            start("gateway", "gateway", gateway, ["--http", "127.0.0.1:0", *served, *to_router])

    def address(self, name: str = "attention") -> str:
        """gRPC address of a process."""
        assert self.supervisor is not None
        child = next(one for one in self.supervisor.children if one.name == name)
        return str(child.announced()["grpc_address"])

    def pids(self) -> list[int]:
        """Of all processes."""
        assert self.supervisor is not None
        return [child.process.pid for child in self.supervisor.children]

    def play(self, requests: list[Request], bypass_cache: bool = True) -> list[dict[str, Any]]:
        """Sends the requests at their times; the answers, in their order."""
        path = write_requests(RESULTS / f"{self.instance.name}.requests", requests)
        flags = ["--bypass-cache"] if bypass_cache else []
        return tool("expertmesh-bench-client", self.address("gateway" if self.gateway else
                                                            "attention"), "bench", str(path),
                    *flags)


class Peer:
    """A peer's engine in a process of its own. Stopped (SIGSTOP) while it is not asked, so that its
    waiting threads take nothing from the other side."""

    def __init__(self, options: Options, gguf: Path, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.options = options
        load = {name: value for name, value in settings.items() if name in bench_peer.LOAD_SETTINGS}
        say(f"starting {bench_peer.NAME} with {gguf.name}")
        RESULTS.mkdir(parents=True, exist_ok=True)
        with (RESULTS / "peer.log").open("w") as log:
            self.process = subprocess.Popen(
                [str(bench_peer.python()), str(bench_peer.SCRIPT), str(gguf), json.dumps(load)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.about = self._answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise MeshError(f"the peer ended; its log: {RESULTS / 'peer.log'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """One operation of tests/bench/peer_engine.py."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def open(self, lanes: int, context: int, settings: dict[str, Any] | None = None) -> None:
        """A new context."""
        chosen = {name: value for name, value in (settings or self.settings).items()
                  if name not in bench_peer.LOAD_SETTINGS}
        self.ask(op="open", lanes=lanes, context=context, settings=chosen)

    def play(self, requests: list[Request]) -> dict[str, Any]:
        """Seconds of the prompts and of the steps."""
        return self.ask(op="run", lanes=[[prompt, forced] for _, _, prompt, forced in requests])
