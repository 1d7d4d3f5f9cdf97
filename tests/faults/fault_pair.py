"""One of several processes of a fault's command: `python fault_pair.py HOST:PORT COUNT INDEX SECONDS ARGUMENTS…`."""

import sys

from experiments.common import hosts

if __name__ == "__main__":
    address, count, index, peer_timeout, *arguments = sys.argv[1:]
    hosts.start(address, int(count), int(index), int(peer_timeout))
    import fault_child  # not before the others are joined: it computes

    fault_child.main(arguments)
