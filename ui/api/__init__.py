"""The endpoints over HTTP and MCP."""
