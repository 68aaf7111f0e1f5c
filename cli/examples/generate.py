"""The smallest client of inference.v1 in Python: a prompt in, the answer as it comes, the reason of
an error. Needs PyPI grpcio and grpcio-tools; the code for the protos is generated on the way.

    python cli/examples/generate.py ADDRESS MODEL PROMPT

e.g. 127.0.0.1:7000 tiny "Once upon a time"
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import grpc
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ["google/rpc/status.proto", "google/rpc/error_details.proto",
          "expertmesh/common/v1/common.proto", "expertmesh/inference/v1/inference.proto"]


def generated(folder: str) -> None:
    """Compiles the protos into `folder` and makes them importable. A real client does that once,
    when it is built."""
    well_known = Path(protoc.__file__).parent / "_proto"
    done = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{ROOT / 'third_party'}",
                        f"-I{well_known}",
                        f"--python_out={folder}", f"--grpc_python_out={folder}", *PROTOS])
    if done != 0:
        raise SystemExit("protoc failed")
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    google = importlib.import_module("google")  # protobuf's own package has no google.rpc
    google.__path__ = [*google.__path__, str(Path(folder) / "google")]


def reason_of(error: grpc.RpcError) -> str:
    """Errors carry a machine-readable reason in google.rpc.ErrorInfo: act on that, never on the
    text."""
    status_pb2 = importlib.import_module("google.rpc.status_pb2")
    details_pb2 = importlib.import_module("google.rpc.error_details_pb2")
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return "UNSPECIFIED"


def main() -> int:
    """Prints the answer; 1 with the reason if there is none."""
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    address, model, prompt = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        generated(folder)
        messages = importlib.import_module("expertmesh.inference.v1.inference_pb2")
        service = importlib.import_module("expertmesh.inference.v1.inference_pb2_grpc")
        request = messages.GenerateRequest(max_tokens=32)
        request.model.model = model
        request.segments.add().text.text = prompt  # the gateway tokenizes
        request.sampling.temperature = 0.7
        request.sampling.seed = 1                  # the same seed gives the same answer
        with grpc.insecure_channel(address) as channel:
            stub = service.InferenceServiceStub(channel)
            try:
                # Every call needs a deadline: calls without one are refused.
                for event in stub.Generate(request, timeout=60):
                    if event.HasField("token"):
                        print(event.token.text, end="", flush=True)
                    if event.HasField("finished"):
                        print(f"\n{event.finished.completion_tokens} tokens", file=sys.stderr)
            except grpc.RpcError as error:
                print(f"{reason_of(error)}: {error.details()}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
