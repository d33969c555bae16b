"""What can compute a shipped network on this machine: our engine, torch, and runtimes that are installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from winticket.ship.compact import load, save
from winticket.ship.engine import SparseModel
from winticket.ship.index_maps import MAPS, load_maps, read_inputs, save_maps
from winticket.ship.network import Floats, Network, Positions
from winticket.ship.onnx import to_onnx
from winticket.ship.tflite import to_tflite
from winticket.text import nearest

ENGINE = "sparse engine"
COMPACT = "network.safetensors"


class Files:
    """A network in the files that runtimes load, written to a folder when they are first needed.

    A process that is given the folder of another one, and no network, finds the files there.
    """

    def __init__(self, network: Network | None, folder: Path) -> None:
        self.folder = folder
        if network is not None:
            self.network = network

    @cached_property
    def network(self) -> Network:
        return load(self.folder / COMPACT)

    @cached_property
    def compact(self) -> Path:
        path = self.folder / COMPACT
        if not path.exists():
            save(self.network, path)
        return path

    @cached_property
    def onnx(self) -> Path:
        return self._onnx("network.onnx", lambda: to_onnx(self.network))

    @cached_property
    def shrunk(self) -> Path:
        """The compact file without what the mask has cut off; its index maps are beside it. ValueError as there."""
        path = self.folder / "shrunk.safetensors"
        if not path.exists():
            made = import_module("winticket.ship.shrinking").shrink_network(self.network)
            save_maps(made.maps, f"{path}{MAPS}")
            save(made.network, path)
        return path

    def read_shrunk(self) -> tuple[Network, dict[str, Positions]]:
        """The network of `shrunk`, and by name of a weight the inputs that its layer reads, if it reads only some."""
        network = load(self.shrunk)
        return network, read_inputs(network, load_maps(f"{self.shrunk}{MAPS}"))

    @cached_property
    def shrunk_onnx(self) -> Path:
        return self._onnx("shrunk.onnx", self._shrunk_onnx)

    def _shrunk_onnx(self) -> bytes:
        network, inputs = self.read_shrunk()
        return to_onnx(network, inputs=inputs)

    def _onnx(self, name: str, made: Callable[[], bytes]) -> Path:
        path = self.folder / name
        if not path.exists():
            path.write_bytes(made())
        return path

    def tflite(self, *, sparse: bool) -> Path:
        path = self.folder / f"network-{'sparse' if sparse else 'dense'}.tflite"
        if not path.exists():
            path.write_bytes(to_tflite(self.network, sparse_kernels=sparse))
        return path


class Bound(NamedTuple):
    """A runtime that has been given its inputs: `compute` computes their logits, `outputs` gives them."""

    compute: Callable[[], object]
    outputs: Callable[[], Floats]


Bind = Callable[[Floats], Bound]


@dataclass(frozen=True)
class Runtime:
    """One way to compute a network.

    summary  for people
    package  that it needs, and whose version is stated
    load     (files, threads) -> what binds it to inputs [N, *input_shape]
    exact    it computes in float32; else it may round to bfloat16
    dense    it multiplies with every weight, those that are 0 included
    """

    name: str
    summary: str
    package: str
    load: Callable[[Files, int], Bind]
    exact: bool = True
    dense: bool = True

    def missing(self) -> str | None:
        """Why it cannot be measured here; None if it can."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return f"{self.package} is not installed"
        return None


def _engine(files: Files, threads: int) -> Bind:
    network = load(files.compact)

    def bind(x: Floats) -> Bound:
        model = SparseModel(network, threads=threads, example=x)
        out = np.empty((len(x), *network.shapes[network.output]), np.float32)
        return Bound(lambda: model(x, out), lambda: out)

    return bind


def _torch(module: Any, threads: int) -> Bind:
    torch = import_module("torch")
    torch.set_num_threads(threads)

    def bind(x: Floats) -> Bound:
        inputs = torch.from_numpy(x)

        def compute() -> Any:
            with torch.inference_mode():
                return module(inputs)

        return Bound(compute, lambda: compute().numpy())

    return bind


def _eager(files: Files, threads: int) -> Bind:
    return _torch(import_module("winticket.ship.measure_module").traced(load(files.compact)), threads)


def _compiled(files: Files, threads: int) -> Bind:
    module = import_module("winticket.ship.measure_module").traced(load(files.compact))
    return _torch(import_module("torch").compile(module, dynamic=False), threads)


def _shrunk(files: Files, threads: int) -> Bind:
    return _torch(import_module("winticket.ship.measure_module").traced(*files.read_shrunk()), threads)


def _onnxruntime(model: Callable[[Files], Path]) -> Callable[[Files, int], Bind]:
    def prepared(files: Files, threads: int) -> Bind:
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = runtime.InferenceSession(str(model(files)), options, providers=["CPUExecutionProvider"])
        (source,), (result,) = session.get_inputs(), session.get_outputs()

        def bind(x: Floats) -> Bound:
            binding = session.io_binding()
            binding.bind_cpu_input(source.name, x)
            binding.bind_output(result.name)
            return Bound(
                lambda: session.run_with_iobinding(binding), lambda: binding.copy_outputs_to_cpu()[0]
            )

        return bind

    return prepared


def _openvino(precision: str) -> Callable[[Files, int], Bind]:
    def prepared(files: Files, threads: int) -> Bind:
        os.environ.setdefault("OPENVINO_TELEMETRY_CONSENT", "0")
        runtime = import_module("openvino")
        core = runtime.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeError(
                "this processor has no instructions for bfloat16, so OpenVINO would compute in float32"
            )
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }

        def bind(x: Floats) -> Bound:
            model = core.read_model(files.onnx)
            model.reshape(list(x.shape))
            request = core.compile_model(model, "CPU", settings).create_infer_request()
            request.set_input_tensor(runtime.Tensor(x, shared_memory=True))
            return Bound(request.infer, lambda: request.get_output_tensor().data)

        return bind

    return prepared


def _litert(*, sparse: bool) -> Callable[[Files, int], Bind]:
    def prepared(files: Files, threads: int) -> Bind:
        runtime = import_module("ai_edge_litert.interpreter")
        # Sparse kernels are LiteRT's own; its default delegate, XNNPACK, has dense ones alone.
        without = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        kind = without if sparse else runtime.OpResolverType.AUTO
        path = str(files.tflite(sparse=sparse))

        def bind(x: Floats) -> Bound:
            interpreter = runtime.Interpreter(path, num_threads=threads, experimental_op_resolver_type=kind)
            (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
            interpreter.resize_tensor_input(taken["index"], x.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(taken["index"], x)
            return Bound(interpreter.invoke, lambda: interpreter.get_tensor(given["index"]))

        return bind

    return prepared


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            ENGINE,
            "winticket's engine, which reads the kept weights alone",
            "winticket",
            _engine,
            dense=False,
        ),
        Runtime("torch", "PyTorch, operation by operation, dense", "torch", _eager),
        Runtime("torch compiled", "PyTorch after torch.compile, dense", "torch", _compiled),
        Runtime(
            "torch shrunk",
            "PyTorch without the units and inputs that are cut off",
            "torch",
            _shrunk,
            dense=False,
        ),
        Runtime(
            "onnxruntime",
            "ONNX Runtime with bound inputs, dense",
            "onnxruntime",
            _onnxruntime(lambda files: files.onnx),
        ),
        Runtime(
            "onnxruntime shrunk",
            "ONNX Runtime without the units and inputs that are cut off",
            "onnxruntime",
            _onnxruntime(lambda files: files.shrunk_onnx),
            dense=False,
        ),
        Runtime("litert", "LiteRT with XNNPACK, dense", "ai-edge-litert", _litert(sparse=False)),
        Runtime(
            "litert sparse",
            "LiteRT's own kernels, which are sparse in linear layers",
            "ai-edge-litert",
            _litert(sparse=True),
            dense=False,
        ),
        Runtime("openvino", "OpenVINO in float32, dense", "openvino", _openvino("f32")),
        Runtime(
            "openvino bf16",
            "OpenVINO, which may round to bfloat16, dense",
            "openvino",
            _openvino("bf16"),
            exact=False,
        ),
    )
}
"""Every runtime by its name."""


def chosen(names: list[str] | None) -> list[Runtime]:
    """The runtimes of these names; default: all. The sparse engine always comes first.

    >>> [runtime.name for runtime in chosen(["torch"])]
    ['sparse engine', 'torch']
    """
    for name in names or ():
        if name not in RUNTIMES:
            raise ValueError(
                f"there is no runtime {name!r}{nearest(name, RUNTIMES)}; there are {', '.join(RUNTIMES)}"
            )
    return [runtime for name, runtime in RUNTIMES.items() if not names or name in (ENGINE, *names)]
