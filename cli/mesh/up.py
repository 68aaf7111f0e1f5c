"""`./mesh up`: build, start, wait until ready, say how to talk to it."""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from mesh import arguments, model
from mesh.build import PROCESSES, binary, build
from mesh.child import keep_previous
from mesh.down import reap_leftovers
from mesh.errors import MeshError
from mesh.instance import DEFAULT_NAME, Instance
from mesh.supervisor import StopRequested, StopSignals, Supervisor

DEFAULT_PORT = 8080
PORTS_TRIED = 100
EXAMPLES = """examples:
  ./mesh up                                       two expert pools of models/demo
  ./mesh up --experts 4 --detach                  four pools, in the background
  ./mesh up --model /data/my-model --port 9000    a Hugging Face directory
  ./mesh up --override 'engram_layer_ids=[]'      the model without its memory
  ./mesh up --name second --slices "0-7;8-31"     beside the first, slices by hand
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares up."""
    up = commands.add_parser(
        "up", help="build and start a mesh", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Builds what is missing and starts router, Engram store, expert pools,\n"
                    "attention workers and gateway, each a process of its own, under one\n"
                    "supervisor, and waits until every one is ready. A process that dies later is\n"
                    "started again after 0.5 s, then 1 s, 2 s, ...; five times in a row.",
        epilog=EXAMPLES)
    up.add_argument("--model", type=Path, metavar="DIR",
                    help="Hugging Face model directory (default: models/demo, small and trained)")
    up.add_argument("--served-model-name", metavar="NAME",
                    help="model id for clients (default: the directory's name)")
    up.add_argument("--experts", type=arguments.count, metavar="N",
                    help="expert pools (default: 2)")
    up.add_argument("--expert-replicas", type=arguments.count, default=1, metavar="R",
                    help="expert workers per pool (default: 1)")
    up.add_argument("--slices", metavar="S;S", help='slices by hand, one pool each: "0-15;16-31"')
    up.add_argument("--attention", type=arguments.count, default=1, metavar="N",
                    help="attention workers (default: 1)")
    up.add_argument("--profile", default="bf16",
                    help="arithmetic, bf16, int8 (keeps int4 and fp4 weights in "
                         "four bits) or exact-f32 (default: bf16)")
    up.add_argument("--transport", choices=("auto", "grpc", "shm"), default="auto",
                    help="between attention and expert workers: shared memory, gRPC, or auto, "
                         "which is shared memory where it can be agreed (default: auto)")
    up.add_argument("--threads", type=arguments.count, metavar="N",
                    help="compute threads of each worker (default: all cores for an attention "
                         "worker; the experts' share of them for an expert worker, two at least)")
    up.add_argument("--port", type=arguments.port, default=DEFAULT_PORT,
                    help=f"HTTP port, the next free one if taken; 0: any (default: {DEFAULT_PORT})")
    up.add_argument("--override", action="append", default=[], metavar="KEY=VALUE",
                    help="a key of config.json replaced on every process, e.g. index_topk=32; may "
                         "be given several times; changes the revision")
    up.add_argument("--no-generation-config", action="store_true",
                    help="do not take defaults of sampling from the model's "
                         "generation_config.json")
    up.add_argument("--debug-api", action="store_true", help="allow inference.v1's debug block")
    up.add_argument("--detach", action="store_true", help="run in the background")
    up.add_argument("--timeout", type=arguments.seconds, default=120, metavar="SECONDS",
                    help="until all processes must be ready (default: 120)")
    up.add_argument("--no-restart", action="store_true",
                    help="leave a process that died dead; bring it back with ./mesh restart")
    up.add_argument("--name", default=DEFAULT_NAME, help="name of this instance (default: default)")
    up.add_argument("--no-build", action="store_true", help="use the programs as they are")
    up.set_defaults(run=run)


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout. The mesh goes on if nobody reads them."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def free_port(wanted: int) -> int:
    """The wanted port, or the next free one, said aloud; 0 stays 0."""
    if wanted == 0:
        return 0
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port != wanted:
            say(f"mesh: port {wanted} is taken, using {port}")
        return port
    raise MeshError(f"no free port from {wanted} on; give --port")


def choose_slices(args: argparse.Namespace, directory: Path, experts: int) -> list[str]:
    """One slice per pool: by hand, or cut as docs/model-family.md §6 says."""
    if not args.slices:
        return model.slices(directory, args.experts or 2)
    slices = [re.sub(r"\s", "", part) for part in args.slices.split(";")]
    if not all(slices) or args.experts not in (None, len(slices)):
        raise MeshError(f'--slices "{args.slices}" has {len(slices)} pools; leave --experts out, '
                        "and write one slice per pool: \"0-15;16-31\"")
    hosted = [False] * experts
    for part in slices:
        for first, last in ranges(part):
            if last >= experts:
                raise MeshError(f'--slices "{args.slices}": the model has experts 0 to '
                                f"{experts - 1} only")
            hosted[first:last + 1] = [True] * (last + 1 - first)
    if False in hosted:
        first = hosted.index(False)
        last = (hosted + [True]).index(True, first) - 1
        raise MeshError(f'--slices "{args.slices}": no pool has the experts {first}-{last}; '
                        f"the model has 0 to {experts - 1}")
    return slices


def ranges(text: str) -> list[tuple[int, int]]:
    """First and last expert of each range of a slice such as "0-3,8-11"."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise MeshError(f'--slices: "{text}" is no slice; write e.g. 0-15 or 0-3,8-11')
        found.append((int(match[1]), int(match[2] or match[1])))
    return found


def check_profile(profile: str, shown: dict[str, Any]) -> None:
    """Refuses a profile that `expertmesh model show` does not count with."""
    known = list(shown["kv_bytes_per_token"])
    if profile not in known:
        raise MeshError(f"--profile {profile}: there are {', '.join(known)}")


def threads(args: argparse.Namespace, pools: int) -> tuple[int, int]:
    """Of each attention worker and of each expert worker. Where there is no wish: attention and
    experts of a step compute in turn, so that each side may have every core; two for an expert
    worker, since one is done first and leaves its core to the others."""
    if args.threads:
        return args.threads, args.threads
    cores = len(os.sched_getaffinity(0))
    experts = pools * args.expert_replicas
    return max(1, cores // args.attention), max(min(2, cores), cores // experts)


def cpus(count: int, turn: int) -> list[str]:
    """Flags that give each of `count` threads a core of its own, if that is all cores there are:
    where a waiting thread of one process shares a core with a busy one of another, the kernel does
    not move it in the little time that a layer takes. `turn`: the core of the first thread, which
    does what its process does alone."""
    cores = sorted(os.sched_getaffinity(0))
    if count != len(cores):
        return []
    return ["--cpus", ",".join(str(cores[(turn + i) % count]) for i in range(count))]


def launch(supervisor: Supervisor, args: argparse.Namespace, directory: Path,
           slices: list[str]) -> None:
    """Starts every process; each finds the others through the router."""
    folder = supervisor.instance.sockets
    router_program, engram_program, expert_program, attention_program, gateway_program = PROCESSES

    def start(name: str, role: str, program: str, flags: list[str]) -> None:
        listen = ["--listen", f"unix:{folder}/{name}.sock"]
        supervisor.start(name, role, [str(binary(program)), *listen, *flags])

    router = ["--router", f"unix:{folder}/router.sock"]
    served = ["--model", str(directory)]
    if args.served_model_name:
        served += ["--served-model-name", args.served_model_name]
    served += [f"--override={word}" for word in args.override]
    worker = [*served, "--profile", args.profile, "--transport", args.transport, *router]
    attention_threads, expert_threads = threads(args, len(slices))
    debug = ["--debug-api"] if args.debug_api else []
    data = ["--data", str(supervisor.instance.logs / "engram")]

    start("router", "router", router_program, [])
    start("engram", "engram-store", engram_program, [*data, *served, *router])
    for pool, experts in enumerate(slices):
        for replica in range(args.expert_replicas):
            start(f"expert-{pool}-{replica}", "expert-worker", expert_program,
                  ["--slice", experts, *worker, "--threads", str(expert_threads),
                   *cpus(expert_threads, pool + 1)])
    for index in range(args.attention):
        start(f"attention-{index}", "attention-worker", attention_program,
              [*worker, *debug, "--threads", str(attention_threads),
               *cpus(attention_threads, index)])
    defaults = ["--no-generation-config"] if args.no_generation_config else []
    start("gateway", "gateway", gateway_program,
          ["--http", f"127.0.0.1:{free_port(args.port)}", *served, *defaults, *router])


def run(args: argparse.Namespace) -> int:
    """Builds, starts, waits, prints how to talk to it."""
    instance = Instance(args.name)
    # What is plain now is said now, and not after the build.
    instance.lock().close()
    if args.model and not (args.model / "config.json").is_file():
        raise MeshError(f"--model {args.model}: there is no config.json; give a Hugging Face model "
                        "directory")
    programs = (*PROCESSES, "expertmesh")
    if not args.no_build:
        build(programs)
    elif absent := [name for name in programs if not binary(name).exists()]:
        raise MeshError(f"--no-build: {absent[0]} was never built; leave --no-build out once")
    directory = (args.model or model.default()).resolve()
    # Checks the directory once, in front, and caches its revision before five readers want it.
    shown = model.show(directory, args.override)
    check_profile(args.profile, shown)
    slices = choose_slices(args, directory, shown["experts"])
    lock = instance.lock()
    for line in reap_leftovers(instance):
        say(f"mesh: {line}")
    ready_in, ready_out = os.pipe()
    if args.detach and (verdict := detach(ready_in, ready_out)) is not None:
        return verdict
    with lock:
        return supervise(args, instance, directory, slices, ready_out)


def detach(ready_in: int, ready_out: int) -> int | None:
    """Goes into the background. None there; in front, the exit code once the supervisor has said
    how its start went."""
    signal.pthread_sigmask(signal.SIG_BLOCK, StopSignals.NUMBERS)  # until both sides handle them
    daemon = os.fork()
    if daemon == 0:
        os.close(ready_in)
        os.setsid()
        return None
    os.close(ready_out)
    signals = StopSignals()
    while ready_in not in (readable := select.select([ready_in, signals], [], [])[0]):
        if readable and signals.wait(0):
            os.kill(daemon, signal.SIGTERM)
    with os.fdopen(ready_in) as verdict:
        return 0 if verdict.read() == "ready" else 1


def supervise(args: argparse.Namespace, instance: Instance, directory: Path, slices: list[str],
              ready_out: int) -> int:
    """Runs until a stop signal comes."""
    signals = StopSignals()
    supervisor = Supervisor(instance, signals, say, restart=not args.no_restart)
    say(f"mesh: starting {args.name}: expert pools {' '.join(slices)} x {args.expert_replicas}, "
        f"{args.attention} attention worker(s); logs in {instance.logs}")
    try:
        launch(supervisor, args, directory, slices)
        supervisor.wait_ready(args.timeout)
        gateway = supervisor.children[-1]
        address = gateway.announced()["http_address"]
        gateway.argv[gateway.argv.index("--http") + 1] = address  # also after a restart
        model_id = args.served_model_name or directory.name
        supervisor.info = {"phase": "ready", "url": f"http://{address}", "model": model_id}
        supervisor.write_state()
        supervisor.write_scrape_targets()
        greet(supervisor.info["url"], model_id, args)
        tell_parent(ready_out)
        if args.detach:
            detach_output(instance)
        supervisor.watch()
        say("mesh: stopping (once more: at once)")
    except StopRequested:
        say("mesh: stopping before it was ready")
        return 130
    except MeshError as error:
        say(f"mesh: {error}")
        return 1
    finally:
        supervisor.stop()
    return 0


def tell_parent(ready_out: int) -> None:
    """Ends the wait of --detach."""
    try:
        os.write(ready_out, b"ready")
    except BrokenPipeError:
        raise MeshError("nobody waits for the start any more; stopping") from None
    os.close(ready_out)


def detach_output(instance: Instance) -> None:
    """From here on the supervisor speaks into its own log."""
    path = instance.logs / "supervisor.log"
    keep_previous(path)
    log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def greet(url: str, model_id: str, args: argparse.Namespace) -> None:
    """How to use what now runs."""
    name = Instance(args.name).option
    body = json.dumps({"model": model_id, "stream": True, "max_tokens": 64,
                       "messages": [{"role": "user", "content": "Explain MoE architecture"}]})
    stop = f"./mesh down{name}" if args.detach else "Ctrl-C"
    try:
        print(f"\nExpertMesh is ready: {url}/v1\n\n"
              f"  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' "
              f"-d '{body}'\n\n"
              f"  ./mesh chat{name} \"Explain MoE architecture\"\n"
              f"  ./mesh status{name}        stop: {stop}\n", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
