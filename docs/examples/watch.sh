#!/bin/sh
# Alarms and what happens in the case, line by line, until Ctrl-C.  Needs socat.
# usage: watch.sh [SOCKET]
socket=${1:-${IONMD_SOCKET:-/run/ionmd/ionmd.sock}}
{
    echo '{"jsonrpc":"2.0","id":1,"method":"status"}'
    echo '{"jsonrpc":"2.0","id":2,"method":"subscribe","params":{"topics":["alarm","case"]}}'
    cat
} | socat - "UNIX-CONNECT:$socket"
