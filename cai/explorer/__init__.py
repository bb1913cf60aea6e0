"""The explorer: a page of its own for a browser, in which optimism is a slider."""
