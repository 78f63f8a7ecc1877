"""The skills as tools of an MCP server over stdin and stdout."""
