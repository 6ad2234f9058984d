"""Start the chat page beside a running API: python -m serve.ui --help"""

import argparse
import os
import sys

KEY_VARIABLE = "T2L_API_KEY"
HOST = "127.0.0.1"
"""Loopback only: whoever reaches the page uses its key."""


def main() -> None:
    arguments = _parser().parse_args()
    from serve.ui.client import ApiClient, PageError  # late, so that --help is instant

    client = ApiClient(arguments.api, arguments.api_key or os.environ.get(KEY_VARIABLE))
    print(f"Waiting for the API at {client.url} to be ready ...", flush=True)
    try:
        client.wait_until_ready()
    except PageError as failure:
        sys.exit(f"error: {failure}")

    import uvicorn

    from serve.ui.page import page_app

    print(f"The page is at http://{HOST}:{arguments.port}", flush=True)
    uvicorn.run(page_app(client), host=HOST, port=arguments.port, log_level="warning")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve.ui",
        description="A chat page: describe a task, get an adapter, compare its answers with the base model's.",
    )
    parser.add_argument("--api", metavar="URL", default="http://127.0.0.1:8000", help="where the API is (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help=f"of the page, on {HOST} (%(default)s)")
    parser.add_argument("--api-key", metavar="KEY", help=f"left out: the value of {KEY_VARIABLE}")
    return parser


if __name__ == "__main__":
    main()
