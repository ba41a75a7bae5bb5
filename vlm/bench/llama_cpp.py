"""llama.cpp as a peer: a model of ours written as GGUF, run by the `xllamacpp` package where it is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import torch
from torch import Tensor

from vlm.language import LanguageModel
from vlm.language.checkpoints.llama import GGUF_NAMES


@contextmanager
def served(
    model: LanguageModel, prompt: list[int], steps: int, dtype: torch.dtype
) -> Iterator[Callable[[], list[int]] | str]:
    """A function that decodes `steps` tokens behind the prompt, which is read at its first call; or why there is none.

    Every call computes the prompt's last token and each chosen one but the last: `steps` tokens.
    """
    try:
        import xllamacpp
    except ImportError:
        yield "xllamacpp is not installed"
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(model, path, dtype)
        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx = len(prompt) + steps + 1
        options.n_parallel, options.warmup, options.verbosity = 1, False, -1
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = torch.get_num_threads()
        if dtype == torch.float32:
            options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        server = xllamacpp.Server(options)
        request = {"prompt": prompt, "max_tokens": steps, "temperature": 0, "ignore_eos": True, "logprobs": 1}

        def decode() -> list[int]:
            choice = server.handle_completions({**request, "cache_prompt": True})["choices"][0]
            return [token["id"] for token in choice["logprobs"]["content"]]

        yield decode


def write_gguf(model: LanguageModel, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """A dense llama as GGUF, matrices in `dtype`, with a vocabulary of made-up words."""
    cfg = model.cfg
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(cfg.max_positions)
    writer.add_embedding_length(cfg.width)
    writer.add_block_count(cfg.layers)
    writer.add_feed_forward_length(cfg.ffn_width)
    writer.add_head_count(cfg.heads)
    writer.add_head_count_kv(cfg.kv_heads)
    writer.add_rope_dimension_count(cfg.head_width)
    writer.add_rope_freq_base(cfg.rope_theta)
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"<{number}>" for number in range(cfg.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * cfg.vocab_size)
    writer.add_token_merges(["< 1"])
    state = model.state_dict()
    heads = {"attn_q": cfg.heads, "attn_k": cfg.kv_heads}
    for layer in range(cfg.layers):
        for theirs, ours in GGUF_NAMES.items():
            if "*" not in theirs and (layer or ours not in state):
                continue  # once
            if ours == "lm_head.weight" and cfg.tied_embeddings:
                continue
            weight = state[ours.replace("*", str(layer))]
            weight = _permuted(weight, heads.get(theirs.split(".")[-2], 0))
            numbers = weight.to(dtype if weight.dim() == 2 else torch.float32).contiguous().numpy()
            writer.add_tensor(theirs.replace("*", str(layer)), numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _permuted(weight: Tensor, heads: int) -> Tensor:
    """llama.cpp rotates neighbouring rows of queries and keys; we rotate halves of a head."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2) if heads else weight
