"""The local stack: everything `dev.py demo` and `dev.py run` start on one Linux machine, with nothing
installed by hand.

child.py      starts one program so that it cannot outlive its parent
processes.py  start, watch and end such programs
home.py       the state folder: its lock, its secret key, its environment
postgres.py   an embedded PostgreSQL server
stack.py      the server, the web processes, the workers and beat, kept running together
commands.py   what `dev.py demo`, `run` and `manage` do once the packages are installed
"""
