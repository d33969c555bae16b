"""Language models from folders in the layout of the Hugging Face Hub, and from GGUF files, by Transformers."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winticket.outside import LONGEST_JSON, Unreadable, read_file, read_json

INSTALL = "pip install 'winticket[lm]'"
_OF_TOKENIZERS = (
    "token*",
    "vocab*",
    "merges*",
    "special_tokens*",
    "added_tokens*",
    "spiece*",
    "*.model",
    "config.json",
)
"""Files of a folder on which its tokens depend."""
_REMARKS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "quantization_config")
"""Entries of a configuration that say where the weights came from and how they were stored, not what is computed."""


@dataclass(frozen=True)
class Source:
    """Where a language model is: its folder or name on the Hub, and the GGUF file within the folder, if it is one."""

    folder: str
    gguf: str | None = None

    def options(self) -> dict[str, Any]:
        """What every `from_pretrained` gets: the file, and that no code of the folder is run."""
        named = {"gguf_file": self.gguf} if self.gguf else {}
        return {**named, "trust_remote_code": False, "local_files_only": Path(self.folder).is_dir()}

    def name(self) -> str:
        """What to call the model: the last part of its path or name."""
        return self.gguf or Path(self.folder).resolve().name

    def title(self) -> str:
        """Its name without the ending of a GGUF file; what is made of the model is named after it.

        >>> Source("models/Qwen2.5-0.5B").title(), Source("models", "smol.q4.gguf").title()
        ('Qwen2.5-0.5B', 'smol.q4')
        """
        return Path(self.gguf).stem if self.gguf else self.name()

    def files(self) -> list[Path]:
        """The files with its weights; none for a name on the Hub."""
        folder = Path(self.folder)
        return [folder / self.gguf] if self.gguf else sorted(folder.glob("*.safetensors"))


def source(path: str | os.PathLike[str]) -> Source:
    """What a path names: a folder with a model, a GGUF file, a folder with one, or a repository of the Hub (user/name).

    Raises ValueError, with what was found, for anything else.
    """
    given = Path(path)
    if given.is_file():
        if given.suffix.lower() == ".gguf":
            return Source(str(given.parent), given.name)
        raise ValueError(
            f"{path} is a file, but neither GGUF (.gguf) nor a folder with config.json and *.safetensors"
        )
    if not given.exists():
        if os.fspath(path).count("/") == 1 and not os.fspath(path).startswith((".", "/", "~")):
            return Source(os.fspath(path))
        raise ValueError(f"there is no model at {path}")
    files = sorted(one.name for one in given.glob("*.gguf"))
    configured = (given / "config.json").is_file()
    if configured and any(given.glob("*.safetensors")):
        return Source(str(given))
    if configured and not files:
        raise ValueError(
            f"{path} has a config.json but no *.safetensors; winticket opens no pickles (.bin), so convert the "
            "model with save_pretrained of Transformers"
        )
    if len(files) == 1:
        return Source(str(given), files[0])
    if files:
        raise ValueError(f"{path} has several GGUF files ({', '.join(files)}); give the path of one")
    raise ValueError(
        f"{path} is no language model: it has neither config.json with *.safetensors nor a .gguf file"
    )


def transformers() -> Any:
    """The package Transformers. Raises ValueError, with what to install, if it is missing."""
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise ValueError(f"language models need the package transformers: {INSTALL}") from error


@contextmanager
def quiet(package: Any) -> Iterator[None]:
    """Within, Transformers shows neither progress bars nor remarks; afterwards as before."""
    logging = package.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def configuration(of: Source) -> Any:
    """The model's configuration. Raises ValueError if it cannot be read or is none of a causal language model."""
    package = transformers()
    _check_gguf(of)
    file = Path(of.folder) / "config.json"
    if not of.gguf and file.is_file():
        try:
            kind = read_json(read_file(file, limit=LONGEST_JSON), dict[str, Any]).get("model_type")
        except Unreadable as error:
            raise ValueError(f"{file} is no good: {error}") from error
        if kind not in package.CONFIG_MAPPING:
            raise ValueError(
                f"{file} names the model type {kind!r}, which Transformers {package.__version__} does not know"
            )
    config = _attempt(
        of, "configuration", lambda: package.AutoConfig.from_pretrained(of.folder, **of.options())
    )
    known = package.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if config.model_type not in known:
        raise ValueError(
            f"{of.name()} is of the type {config.model_type!r}, which is no causal language model"
        )
    return config


def _check_gguf(of: Source) -> None:
    if of.gguf and importlib.util.find_spec("gguf") is None:
        raise ValueError(f"GGUF files need the package gguf: {INSTALL}")


def skeleton(config: Any) -> nn.Module:
    """The model of a configuration without its weights, which takes no memory."""
    with torch.device("meta"), quiet(transformers()):
        model: nn.Module = transformers().AutoModelForCausalLM.from_config(config)
    return model


def drawn(config: Any) -> nn.Module:
    """The model of a configuration, float32, as it initialises itself from torch's global generator.

    Its attention consists of plain operators, so it can be stacked and traced.
    """
    with quiet(transformers()):
        model: nn.Module = transformers().AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=torch.float32, attn_implementation="eager"
        )
    return model


def from_tokens(model: nn.Module) -> nn.Module:
    """The same model, whose forward pass takes tokens [N, T] alone and returns logits [N, T, K] alone."""
    kind = type(model)

    def forward(self: Any, tokens: Tensor) -> Tensor:
        # All ones, as without a mask; but without one, Transformers looks for the ends of packed texts, which is a
        # branch on values that cannot be traced.
        whole = torch.ones_like(tokens)
        logits: Tensor = kind.forward(self, input_ids=tokens, attention_mask=whole, use_cache=False).logits
        return logits

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return model


def tokenizer(of: Source) -> Any:
    """The model's tokenizer. Raises ValueError if there is none."""
    package = transformers()
    words = _attempt(
        of, "tokenizer", lambda: package.AutoTokenizer.from_pretrained(of.folder, **of.options())
    )
    # Without its files, Transformers makes some tokenizers of special tokens alone, to which all text is unknown.
    if len(words) <= len(set(words.all_special_ids)):
        raise ValueError(
            f"the tokenizer of {of.name()} cannot be read: there is no vocabulary, such as that of tokenizer.json"
        )
    return words


def encoder(words: Any) -> Callable[[str], Sequence[int]]:
    """A tokenizer as a function from text to token ids, without special tokens."""

    def encode(text: str) -> Sequence[int]:
        ids: Sequence[int] = words(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    return encode


def load(of: Source) -> nn.Module:
    """The model, for evaluation, in the dtype that its configuration names, or else its file has (float32 from GGUF).

    Weights of safetensors files are mapped from them, so they take memory only as they are read, and the system can
    drop them again. Raises ValueError if the files cannot be read, or lack weights of the model.
    """
    package = transformers()
    dtype: Any = torch.float32 if of.gguf else "auto"
    more = {} if of.gguf else {"use_safetensors": True}

    def loaded() -> Any:
        return package.AutoModelForCausalLM.from_pretrained(
            of.folder, dtype=dtype, output_loading_info=True, **more, **of.options()
        )

    model, about = _attempt(of, "weights", loaded)
    if missing := sorted(about["missing_keys"]):
        raise ValueError(
            f"{of.name()} lacks weights of the model: {', '.join(missing[:3])} ({len(missing)} in all)"
        )
    if of.gguf:  # its weights are plain now, and Transformers would refuse to save a quantized model
        model.hf_quantizer = None
        model.is_quantized = False
        del model.config.quantization_config
    evaluated: nn.Module = model.eval()
    return evaluated.requires_grad_(False)


def _attempt(of: Source, what: str, read: Callable[[], Any]) -> Any:
    """What `read` returns. Transformers raises errors of many kinds for files that it cannot read; all are refusals."""
    try:
        with quiet(transformers()):
            return read()
    except MemoryError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        hub = (
            "" if Path(of.folder).is_dir() else f"there is no folder {of.folder} here; as a name on the Hub, "
        )
        raise ValueError(f"{hub}the {what} of {of.name()} cannot be read: {first}") from error


def saved(folder: Path, model: nn.Module) -> None:
    """Write a model's weights into a folder, as `from_pretrained` reads them."""
    whole: Any = model
    with quiet(transformers()):
        whole.save_pretrained(folder)
    mode = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)  # safetensors makes files that only their owner can read


def saved_beside(folder: Path, model: nn.Module, words: Any) -> None:
    """Write configuration, generation settings and tokenizer into the folder of a model's weights."""
    config: Any = model.config
    if getattr(config, "quantization_config", None) is not None:  # weights from GGUF are no longer quantized
        del config.quantization_config
    with quiet(transformers()):
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        words.save_pretrained(folder)
        generation: Any = getattr(model, "generation_config", None)
        if generation is not None:
            generation.save_pretrained(folder)


def longest(config: Any) -> int | None:
    """Most tokens that the model reads at once; None if its configuration does not say."""
    value = getattr(config, "max_position_embeddings", None)
    return value if isinstance(value, int) and value > 0 else None


def local(path: str | os.PathLike[str]) -> Source:
    """As `source`, for a model that is on this machine: worker processes read it again and again.

    Raises ValueError for a name on the Hub, and for a path with a colon, which names a function elsewhere.
    """
    of = source(path)
    if not Path(of.folder).is_dir():
        raise ValueError(
            f"there is no folder {path}; a model of the Hub has to be on this machine for a search: "
            f"hf download {path} --local-dir FOLDER"
        )
    if ":" in os.fspath(path):
        raise ValueError(
            f"{path} has a colon in its path, which stands for a function elsewhere; rename the folder"
        )
    return of


def vocabulary(config: Any) -> int:
    """The number of tokens that a model of this configuration knows, which is that of its outputs."""
    return int(config.get_text_config(decoder=True).vocab_size)


def digest(config: Any) -> str:
    """SHA-256 (hexadecimal) of what a configuration says about a model's computation."""
    described = json.loads(config.to_json_string(use_diff=True))
    kept = {name: value for name, value in described.items() if name not in _REMARKS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def tokenizer_digest(of: Source) -> str:
    """SHA-256 (hexadecimal) of the files from which a local model's tokenizer is made; a GGUF file's size and time."""
    total, folder = hashlib.sha256(), Path(of.folder)
    if of.gguf:
        about = (folder / of.gguf).stat()
        total.update(f"{of.gguf} {about.st_size} {about.st_mtime_ns}".encode())
        return total.hexdigest()
    for file in sorted(
        {file for pattern in _OF_TOKENIZERS for file in folder.glob(pattern) if file.is_file()}
    ):
        total.update(f"{file.name} {file.stat().st_size};".encode() + file.read_bytes())
    return total.hexdigest()
