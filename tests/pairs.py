"""Several processes of one run, on this machine."""

import socket


def two_environments():
    """What each of two processes has in its environment to find the other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [{**common, "JAX_PROCESS_ID": str(index)} for index in (0, 1)]
