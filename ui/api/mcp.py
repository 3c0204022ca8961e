"""The endpoints as MCP tools: short schemas, what each may change, and results as JSON.

Gradio's server runs the calls; this module makes the schemas and results. Arguments that a schema
leaves out, to be short, work as they do over HTTP.
"""

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder

from ramole_core import RamoleError

if TYPE_CHECKING:
    from gradio.mcp import GradioMCPServer
    from mcp import types

FILE = (
    "The zip as base64 or a data: URL; or the path that `curl -F files=@my.zip "
    "SERVER/gradio_api/upload` printed."
)


@dataclass(frozen=True)
class ToolRow:
    """An endpoint's description for clients."""

    changes: bool = False
    """Whether it changes the session's pool."""
    removes: bool = False
    shown: tuple[str, ...] | None = None
    """Arguments in its schema; None: all."""
    key: str = ""
    """Key of a list in the result, which must be an object."""


TOOLS = {
    "ask": ToolRow(
        shown=(
            *("prompt", "method", "k", "adapters", "weights", "exclude", "max_new_tokens"),
            *("temperature", "seed", "system", "history"),
        ),
    ),
    "ask_batch": ToolRow(key="answers"),
    "retrieve": ToolRow(key="adapters"),
    "list_adapters": ToolRow(key="adapters"),
    "add_adapter": ToolRow(changes=True),
    "remove_adapter": ToolRow(changes=True, removes=True),
}


def describe_tools(page: gr.Blocks) -> None:
    """Describe the tools of the page's MCP server as in this file; nothing where it has none."""
    server = page.mcp_server_obj
    if server is None:
        return
    lower = server.mcp_server

    async def listed() -> "list[types.Tool]":
        chosen = server.get_selected_tools_from_request()
        return [tool for tool in tools_of(server) if chosen is None or tool.name in chosen]

    async def call(name: str, arguments: dict[str, Any]) -> "types.CallToolResult":
        return await _called(server, name, arguments)

    lower.list_tools()(listed)
    lower.call_tool()(call)


def tools_of(server: "GradioMCPServer") -> "list[types.Tool]":
    """Every endpoint as a tool."""
    from mcp import types

    found = []
    for name, endpoint in server.tool_to_endpoint.items():
        row = TOOLS.get(endpoint.lstrip("/"))
        block = server.get_block_fn_from_endpoint_name(endpoint)
        if row is None or block is None:
            continue
        words, parameters = server.get_fn_description(block, name)
        schema, _ = server.get_input_schema(name, parameters)
        hints = types.ToolAnnotations(
            readOnlyHint=not row.changes,
            destructiveHint=row.removes,
            idempotentHint=not row.changes,
            openWorldHint=False,
        )
        found.append(
            types.Tool(
                name=name,
                description=_first_words(words),
                inputSchema=_short(schema, row),
                annotations=hints,
            )
        )
    return found


def _first_words(words: str) -> str:
    """The description without Gradio's notes on files and results."""
    return words.partition(" If a user passes a file")[0].partition(" Returns: ")[0].strip()


def _short(schema: dict[str, Any], row: ToolRow) -> dict[str, Any]:
    """The arguments that are shown, each with a type and a description."""
    properties = {}
    for name, given in schema["properties"].items():
        if row.shown is not None and name not in row.shown:
            continue
        said = {key: given[key] for key in ("type", "items", "description") if key in given}
        if name == "file":
            said["description"] = FILE
        properties[name] = said
    return {"type": "object", "properties": properties, "required": schema.get("required", [])}


async def _called(
    server: "GradioMCPServer", name: str, arguments: dict[str, Any]
) -> "types.CallToolResult":
    """Run a tool as Gradio does, and give what came as JSON: structured, and as a text."""
    from mcp import types

    if "file" in arguments:
        arguments = {**arguments, "file": _file(arguments["file"])}
    endpoint, given, headers, _ = server._prepare_tool_call_args(name, arguments)
    client = await asyncio.to_thread(server._get_or_create_client)
    job = client.submit(*given, api_name=endpoint, headers=headers)
    meta = server.mcp_server.request_context.meta
    token = None if meta is None else meta.progressToken
    if token is None:
        came = await asyncio.to_thread(job.result)
        values = list(came) if isinstance(came, tuple) else [came]
    else:
        values = list(await server._execute_tool_with_progress(job, token))
    said = structured(values, TOOLS[endpoint.lstrip("/")])
    text = json.dumps(said, ensure_ascii=False)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structuredContent=said
    )


def structured(values: Sequence[Any], row: ToolRow) -> dict[str, Any]:
    """An endpoint's result as one object: an answer's text beside its fields."""
    if len(values) == 2:
        text, about = values
        return {"text": text, **about}
    (value,) = values
    return value if isinstance(value, dict) else {row.key: value}


def _file(given: object) -> object:
    """An upload as Gradio takes it: a data: URL, or a file that was uploaded before. Raises
    RamoleError for anything else."""
    if not isinstance(given, str) or given.startswith(("data:", "http://", "https://")):
        return given
    cache = Path(get_upload_folder()).resolve()
    path = Path(given[:4096])
    packed = "".join(given.split())  # `base64 FILE` prints lines
    try:
        if path.is_absolute() and path.resolve().is_relative_to(cache):
            return gr.FileData(path=given, meta={"_type": "gradio.FileData"}).model_dump()
        base64.b64decode(packed, validate=True)
    except ValueError:  # of a path, too: one with a null byte
        raise RamoleError(
            f"file is neither base64, nor a data: URL, nor an upload's path. {FILE}"
        ) from None
    return f"data:application/zip;base64,{packed}"
