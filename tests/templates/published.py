"""What is known of each template in this folder: its tokens, what it takes, and what it writes around an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conftest import TEMPLATES, make_template_tokenizer, make_tokenizer, template_source

HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
INST = ("[INST]", "[/INST]")
TOOL_MARKS = ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")
QWEN_MARKS = ("<tool_call>", "</tool_call>")
GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>")
GRANITE = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>")

MORE: dict[str, dict[str, Any]] = {
    "llama31_tools": {"eos": "<|eot_id|>", "bos": "<|begin_of_text|>", "controls": HEADERS},
    "mistral_v1": {"eos": "</s>", "bos": "<s>"},
    "mistral_tekken": {"eos": "</s>", "bos": "<s>", "controls": (*INST, *TOOL_MARKS)},
    "gemma3": {"eos": "<eos>", "bos": "<bos>", "controls": GEMMA},
    "phi4": {"controls": ("<|im_sep|>",)},
    "qwen2": {},
    "qwen25_tools": {"marks": QWEN_MARKS},
    "deepseek_v2": {"eos": "</s>", "bos": "<s>"},
    "gpt_oss": {"eos": "<|return|>", "controls": HARMONY},
    "falcon": {"eos": "<|endoftext|>"},
    "olmo": {"eos": "<|endoftext|>", "bos": "<|endoftext|>"},
    "smollm3": {"marks": QWEN_MARKS},
    "granite": {"eos": "<|end_of_text|>", "controls": GRANITE},
}
"""The tokens of the templates that tests/conftest.py does not list."""


@dataclass(frozen=True)
class Facts:
    """What a template writes: the supervised text of an answer is `before + answer + after + stop`."""

    before: str = ""
    after: str = ""
    stop: str | None = None
    system: bool = True
    call: str | None = None
    """A turn that calls a tool, up to the stop token; none where the template has no tools."""
    call_stop: str | None = None
    splits: frozenset[str] = frozenset()
    """Kinds of conversation in which earlier turns do not stay as they were, so each answer is an example."""
    bos: int | None = 1
    """BOS tokens of a prompt of one turn."""
    refused: bool = False


NAME, ARGUMENTS = '"add"', '{"a": 1, "b": "é"}'
JSON_CALL = f'{{"name": {NAME}, "arguments": {ARGUMENTS}}}'
CALL_QWEN = f"\n<tool_call>\n{JSON_CALL}\n</tool_call>"
EMPTY = "<think>\n\n</think>\n\n"
EVERY = frozenset({"turns", "system", "thinking", "tools"})
FACTS: dict[str, Facts] = {
    "chatml": Facts(),
    "marked": Facts(),
    "qwen3": Facts(before=EMPTY, call=EMPTY + CALL_QWEN, splits=EVERY),
    "alpaca": Facts(),
    "vicuna": Facts(before=" ", bos=0),
    "zephyr": Facts(),
    "llama2": Facts(before=" ", after=" "),
    "mistral": Facts(before=" ", call=f"[TOOL_CALLS] [{JSON_CALL}]", splits=frozenset({"system"})),
    "llama3": Facts(),
    "gemma": Facts(system=False, stop="<end_of_turn>"),
    "phi3": Facts(stop="<|end|>"),
    "deepseek_r1": Facts(before="\n</think>\n\n", splits=EVERY),
    "command_r": Facts(),
    "glm": Facts(refused=True),
    "llama31_tools": Facts(call=f'{{"name": {NAME}, "parameters": {ARGUMENTS}}}'),
    "mistral_v1": Facts(before=" ", system=False),
    "mistral_tekken": Facts(call=f"[TOOL_CALLS][{JSON_CALL}]", splits=frozenset({"system"})),
    "gemma3": Facts(stop="<end_of_turn>"),
    "phi4": Facts(),
    "qwen2": Facts(),
    "qwen25_tools": Facts(call=CALL_QWEN.removeprefix("\n")),
    "deepseek_v2": Facts(before=" "),
    "gpt_oss": Facts(
        before="<|channel|>final<|message|>",
        call=f" to=functions.add<|channel|>commentary json<|message|>{ARGUMENTS}",
        call_stop="<|call|>",
        # The last answer ends with <|return|>, and with <|end|> once there is another turn.
        splits=frozenset({"turns", "system", "thinking"}),
    ),
    "falcon": Facts(before=" "),
    "olmo": Facts(),
    "smollm3": Facts(call=f"<tool_call>{JSON_CALL}</tool_call>"),
    "granite": Facts(call=f"<|tool_call|>[{JSON_CALL}]"),
}


def published_tokenizer(folder, name: str):
    """A tokenizer with the named template and its control tokens."""
    if name in TEMPLATES:
        return make_template_tokenizer(folder, name)
    return make_tokenizer(folder, template=template_source(name), **MORE[name])
